/* Whatever a container's environment and its trigger file hold, the restore entrypoint has settings
 * within their bounds, and finds no checkpoint where there is none.
 * Input: NAME=VALUE, ended by NUL bytes; what has no `=` is the trigger file's content. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "entrypoint/choose.h"
#include "entrypoint/settings.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const names[] = {"DYN_CHECKPOINT_HASH",  "DYN_RESTORE_MARKER_FILE",
                                    "CRIU_TIMEOUT",         "CRIU_LOG_LEVEL",
                                    "CRIU_WORK_DIR",        "CUDA_PLUGIN_DIR",
                                    "CRIU_SKIP_IN_FLIGHT",  "CRIU_AUTO_DEDUP",
                                    "CRIU_LAZY_PAGES",      "WAIT_FOR_CHECKPOINT",
                                    "RESTORE_WAIT_TIMEOUT", "DEBUG",
                                    "DEFAULT_CMD",          "CRIU_LOG_DIR"};

static char path[] = "/tmp/chrek-fuzz-XXXXXX";

static void leave(void)
{
    (void)!fs_remove_tree(AT_FDCWD, path, NULL);
}

/* An empty store, an image without a checkpoint, and a place for the trigger file. */
static void prepare(void)
{
    static bool done;
    if (!done && (!mkdtemp(path) || atexit(leave) != 0 || !freopen("/dev/null", "w", stdout)))
        abort();
    done = true;
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        (void)unsetenv(names[i]);
    CLEANUP(mem_freep) char *trigger = mem_asprintf("%s/trigger", path);
    CLEANUP(mem_freep) char *embedded = mem_asprintf("%s/embedded", path);
    (void)setenv("DYN_CHECKPOINT_PATH", path, 1);
    (void)setenv("RESTORE_TRIGGER", trigger, 1);
    (void)setenv("EMBEDDED_CHECKPOINT_PATH", embedded, 1);
    (void)unlink(trigger);
}

static void take(char *text)
{
    char *value = strchr(text, '=');
    CLEANUP(mem_freep) char *trigger = mem_asprintf("%s/trigger", path);
    if (!value && fs_write_whole(AT_FDCWD, trigger, text, strlen(text), 0600, NULL) != RC_OK)
        abort();
    if (!value)
        return;
    *value++ = '\0';
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(text, names[i]) == 0)
            (void)setenv(text, value, 1);
}

static bool is_empty(const char *text)
{
    return text && !*text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct settings s;
    struct err err = ERR_INIT;
    struct store_entry *entry = NULL;
    prepare();
    while (len) {
        size_t n = strnlen((const char *)data, len);
        CLEANUP(mem_freep) char *text = mem_asprintf("%.*s", (int)n, (const char *)data);
        take(text);
        n += n < len;
        data += n;
        len -= n;
    }
    settings_read(&s);
    if (s.log_level < 0 || s.log_level > 4 || s.timeout_s > UINT32_MAX ||
        s.wait_timeout_s > UINT32_MAX || is_empty(s.hash) || is_empty(s.marker) ||
        is_empty(s.work_dir) || is_empty(s.default_cmd) || is_empty(s.log_dir))
        abort();
    if (choose_checkpoint(&s, &entry, &err) == RC_OK || !err.msg[0])
        abort();
    return 0;
}
