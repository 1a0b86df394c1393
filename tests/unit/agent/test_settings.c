#include "agent/settings.h"
#include "base/compiler.h"
#include "harness/test.h"

#include <stdlib.h>

static const struct opt_command command = {
    .name = "watch", .synopsis = "", .opts = settings_options};

static enum rc parse(char **argv, struct settings *s, struct err *err)
{
    int argc = 0, first = 0;
    while (argv[argc])
        argc++;
    settings_init(s);
    enum rc rc = opt_parse(&command, s, argc, argv, &first, err);
    return rc ? rc : settings_check(s, err);
}

TEST(the_contracts_defaults_and_variables_hold)
{
    struct err err = ERR_INIT;
    struct settings s;
    char *none[] = {NULL};
    CHECK_OK(parse(none, &s, &err));
    CHECK_STR(s.runtime, "/run/containerd/containerd.sock");
    CHECK_STR(s.store, "/checkpoints");
    CHECK_STR(s.node, "unknown");
    CHECK_STR(s.listen, ":8080");
    CHECK_STR(s.host_proc, "/host/proc");
    CHECK(!s.external);
    CHECK(!s.name_space && !s.plain && s.codec == COMPRESS_LZ4 && s.ghost_limit == 0);
    CHECK(setenv("CONTAINERD_SOCKET", "/x.sock", 1) == 0 && setenv("NODE_NAME", "n", 1) == 0 &&
          setenv("CHECKPOINT_DIR", "/c", 1) == 0 && setenv("RESTRICTED_NAMESPACE", "", 1) == 0 &&
          setenv("CHECKPOINT_SIGNAL_FROM", "Watcher", 1) == 0 &&
          setenv("HOST_PROC", "/h", 1) == 0 && setenv("LISTEN_ADDR", "[::1]:9", 1) == 0 &&
          setenv("EXTERNAL_MOUNTS", "mnt[/a]:/a,mnt[/b]:/b", 1) == 0 &&
          setenv("CRIU_GHOST_LIMIT", "536870912", 1) == 0 &&
          setenv("CRIU_TIMEOUT", "21600", 1) == 0);
    CHECK_OK(parse(none, &s, &err));
    CHECK_STR(s.runtime, "/x.sock");
    CHECK_STR(s.node, "n");
    CHECK_STR(s.store, "/c");
    CHECK_STR(s.host_proc, "/h");
    CHECK_STR(s.listen, "[::1]:9");
    CHECK_STR(s.external, "mnt[/a]:/a,mnt[/b]:/b");
    CHECK(!s.name_space && s.ghost_limit == 536870912 && s.timeout_s == 21600);
}

TEST(a_number_of_the_environment_that_is_none_is_passed_over)
{
    struct err err = ERR_INIT;
    struct settings s;
    char *none[] = {NULL};
    CHECK(setenv("CRIU_GHOST_LIMIT", "lots", 1) == 0 &&
          setenv("CRIU_TIMEOUT", "4294967296", 1) == 0);
    CHECK_OK(parse(none, &s, &err));
    CHECK(s.ghost_limit == 0 && s.timeout_s == 0);
    char *given[] = {(char *)(uintptr_t) "--ghost-limit=1M", NULL};
    CHECK_OK(parse(given, &s, &err));
    CHECK_INT(s.ghost_limit, 1 << 20);
}

TEST(what_is_not_there_is_refused)
{
    static const char *const bad[] = {"--signal-from=http", "--tries=0", "--format=tar",
                                      "--compression=gzip", "--ghost-limit=5G"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct settings s;
        char *argv[] = {(char *)(uintptr_t)bad[i], NULL};
        CHECK(parse(argv, &s, &err) != RC_OK);
    }
}
