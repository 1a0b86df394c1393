#include "entrypoint/settings.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "entrypoint/log.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CUDA_TIMEOUT_S 21600 /* CRIU's own default, 10 s, is too short for GPU memory */

static const char *text_of(const char *name, const char *fallback)
{
    const char *v = getenv(name);
    return v && *v ? v : fallback;
}

/* Set to nothing, it says something else than not set. */
static const char *text_or_nothing(const char *name, const char *fallback)
{
    const char *v = getenv(name);
    return v ? v : fallback;
}

static bool truth_of(const char *name)
{
    const char *v = text_of(name, "0");
    bool truth = false;
    if (num_parse_bool(v, &truth, NULL) != RC_OK)
        log_warn("Ignoring a variable that is neither true nor false", "name", name, "value", v,
                 NULL);
    return truth;
}

/* What protects is on unless it is clearly off. */
static bool protection_of(const char *name)
{
    const char *v = text_of(name, "0");
    bool truth = true;
    return num_parse_bool(v, &truth, NULL) != RC_OK || truth;
}

static uint64_t number_of(const char *name, uint64_t max, uint64_t fallback)
{
    const char *v = text_of(name, NULL);
    uint64_t n = fallback;
    if (v && num_parse_u64(v, 0, max, &n, NULL) != RC_OK)
        log_warn("Ignoring a variable that is no number", "name", name, "value", v, NULL);
    return n;
}

static uint64_t duration_of(const char *name)
{
    const char *v = text_of(name, NULL);
    uint64_t ns = 0;
    if (v && num_parse_duration(v, &ns, NULL) != RC_OK)
        log_warn("Ignoring a variable that is no duration", "name", name, "value", v, NULL);
    return ns;
}

static enum engine_mode mode_of(void)
{
    enum engine_mode mode = ENGINE_DEFAULT;
    const char *v = text_of("CHREK_RESTORE_MODE", NULL);
    if (mode_parse(v, &mode, NULL) != RC_OK)
        log_warn("Ignoring a restore mode that there is not", "name", "CHREK_RESTORE_MODE", "value",
                 v, NULL);
    return !v && truth_of("CRIU_LAZY_PAGES") ? ENGINE_LAZY : mode;
}

void settings_read(struct settings *s)
{
    *s = (struct settings){.hash = text_of("DYN_CHECKPOINT_HASH", NULL),
                           .path = text_of("DYN_CHECKPOINT_PATH", "/checkpoints"),
                           .marker = text_of("DYN_RESTORE_MARKER_FILE", "/tmp/dynamo-restored"),
                           .timeout_s = number_of("CRIU_TIMEOUT", UINT32_MAX, 0),
                           .log_level = (int)number_of("CRIU_LOG_LEVEL", 4, 4),
                           .work_dir = text_of("CRIU_WORK_DIR", "/tmp"),
                           .cuda_plugin_dir = text_of("CUDA_PLUGIN_DIR", "/usr/local/lib/criu"),
                           .skip_in_flight = truth_of("CRIU_SKIP_IN_FLIGHT"),
                           .auto_dedup = truth_of("CRIU_AUTO_DEDUP"),
                           .mode = mode_of(),
                           .wait = truth_of("WAIT_FOR_CHECKPOINT"),
                           .wait_timeout_s = number_of("RESTORE_WAIT_TIMEOUT", UINT32_MAX, 300),
                           .debug = truth_of("DEBUG"),
                           .trigger = text_of("RESTORE_TRIGGER", "/tmp/restore-trigger"),
                           .embedded = text_of("EMBEDDED_CHECKPOINT_PATH", "/embedded-checkpoint"),
                           .default_cmd = text_of("DEFAULT_CMD", NULL),
                           .log_dir = text_of("CRIU_LOG_DIR", NULL),
                           .key_file = text_of("CHREK_KEY_FILE", NULL),
                           .key_command = text_of("CHREK_KEY_COMMAND", NULL),
                           .key_timeout_ns = duration_of("CHREK_KEY_TIMEOUT"),
                           .trust_key = text_of("CHREK_TRUST_KEY", NULL),
                           .agent_socket =
                               text_or_nothing("CHREK_AGENT_SOCKET", "/run/chrek-agent/agent.sock"),
                           .agent_timeout_ns = duration_of("CHREK_AGENT_TIMEOUT"),
                           .require_signature = protection_of("CHREK_REQUIRE_SIGNATURE")};
    if (!s->agent_timeout_ns)
        s->agent_timeout_ns = 15 * CLOCK_S;
    CLEANUP(mem_freep) char *plugin = mem_asprintf("%s/cuda_plugin.so", s->cuda_plugin_dir);
    s->has_cuda_plugin = access(plugin, R_OK) == 0;
    if (!s->timeout_s && s->has_cuda_plugin)
        s->timeout_s = CUDA_TIMEOUT_S;
}
