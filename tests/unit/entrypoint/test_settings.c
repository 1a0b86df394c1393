#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "entrypoint/settings.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static void set(const char *name, const char *value)
{
    CHECK(setenv(name, value, 1) == 0);
}

TEST(the_contracts_defaults_hold)
{
    struct settings s;
    CHECK(clearenv() == 0);
    set("CUDA_PLUGIN_DIR", test_dir()); /* the machine may have one where it usually is */
    settings_read(&s);
    CHECK(!s.hash && !s.default_cmd && !s.log_dir);
    CHECK_STR(s.path, "/checkpoints");
    CHECK_STR(s.marker, "/tmp/dynamo-restored");
    CHECK_STR(s.work_dir, "/tmp");
    CHECK_STR(s.trigger, "/tmp/restore-trigger");
    CHECK_STR(s.embedded, "/embedded-checkpoint");
    CHECK_STR(s.agent_socket, "/run/chrek-agent/agent.sock");
    CHECK_INT(s.timeout_s, 0);
    CHECK_INT(s.log_level, 4);
    CHECK_INT(s.wait_timeout_s, 300);
    CHECK_INT(s.mode, ENGINE_DEFAULT);
    CHECK(!s.skip_in_flight && !s.auto_dedup && !s.wait && !s.debug && !s.has_cuda_plugin);
    CHECK(unsetenv("CUDA_PLUGIN_DIR") == 0);
    settings_read(&s);
    CHECK_STR(s.cuda_plugin_dir, "/usr/local/lib/criu");
}

TEST(every_variable_counts)
{
    static const char *const texts[][2] = {{"DYN_CHECKPOINT_HASH", "h"},
                                           {"DYN_CHECKPOINT_PATH", "/p"},
                                           {"DYN_RESTORE_MARKER_FILE", "/m"},
                                           {"CRIU_WORK_DIR", "/w"},
                                           {"RESTORE_TRIGGER", "/t"},
                                           {"EMBEDDED_CHECKPOINT_PATH", "/e"},
                                           {"DEFAULT_CMD", "x y"},
                                           {"CRIU_LOG_DIR", "/l"},
                                           {"CUDA_PLUGIN_DIR", "/c"},
                                           {"CRIU_TIMEOUT", "7"},
                                           {"CRIU_LOG_LEVEL", "2"},
                                           {"RESTORE_WAIT_TIMEOUT", "9"},
                                           {"CRIU_SKIP_IN_FLIGHT", "1"},
                                           {"CRIU_AUTO_DEDUP", "true"},
                                           {"CRIU_LAZY_PAGES", "yes"},
                                           {"WAIT_FOR_CHECKPOINT", "on"},
                                           {"DEBUG", "1"}};
    struct settings s;
    CHECK(clearenv() == 0);
    for (size_t i = 0; i < ARRAY_LEN(texts); i++)
        set(texts[i][0], texts[i][1]);
    settings_read(&s);
    const char *const got[] = {s.hash,     s.path,        s.marker,  s.work_dir,       s.trigger,
                               s.embedded, s.default_cmd, s.log_dir, s.cuda_plugin_dir};
    for (size_t i = 0; i < ARRAY_LEN(got); i++)
        CHECK_STR(got[i], texts[i][1]);
    CHECK_INT(s.timeout_s, 7);
    CHECK_INT(s.log_level, 2);
    CHECK_INT(s.wait_timeout_s, 9);
    CHECK_INT(s.mode, ENGINE_LAZY);
    CHECK(s.skip_in_flight && s.auto_dedup && s.wait && s.debug);
}

TEST(what_does_not_parse_is_the_default)
{
    static const char *const numbers[] = {"CRIU_TIMEOUT", "CRIU_LOG_LEVEL", "RESTORE_WAIT_TIMEOUT"};
    static const char *const bad[] = {"soon", "-1", "0x10", "4294967296", " 1"};
    struct settings s;
    CHECK(dup2(STDERR_FILENO, STDOUT_FILENO) >= 0); /* what is ignored is warned of there */
    CHECK(clearenv() == 0);
    set("CUDA_PLUGIN_DIR", test_dir());
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        for (size_t k = 0; k < ARRAY_LEN(numbers); k++)
            set(numbers[k], bad[i]);
        set("DEBUG", bad[i]);
        settings_read(&s);
        CHECK(s.timeout_s == 0 && s.log_level == 4 && s.wait_timeout_s == 300 && !s.debug);
    }
    set("CRIU_LOG_LEVEL", "5");
    settings_read(&s);
    CHECK_INT(s.log_level, 4);
}

TEST(with_a_cuda_plugin_no_timeout_means_six_hours)
{
    struct err err = ERR_INIT;
    struct settings s;
    CLEANUP(mem_freep) char *plugin = mem_asprintf("%s/cuda_plugin.so", test_dir());
    CHECK(clearenv() == 0);
    CHECK_OK(fs_write_whole(AT_FDCWD, plugin, "x", 1, 0755, &err));
    set("CUDA_PLUGIN_DIR", test_dir());
    settings_read(&s);
    CHECK(s.has_cuda_plugin);
    CHECK_INT(s.timeout_s, 21600);
    set("CRIU_TIMEOUT", "60");
    settings_read(&s);
    CHECK_INT(s.timeout_s, 60);
}

TEST(no_agent_is_asked_where_its_socket_is_set_to_nothing)
{
    struct settings s;
    CHECK(clearenv() == 0);
    set("CHREK_AGENT_SOCKET", "");
    settings_read(&s);
    CHECK_STR(s.agent_socket, "");
    CHECK_INT(s.agent_timeout_ns, 15 * CLOCK_S);
}
