#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/key_command.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

/* A script of this test; the caller's (free). */
static char *script(const char *name, const char *text)
{
    struct err err = ERR_INIT;
    char *path = mem_asprintf("%s/%s", test_dir(), name);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0700, &err));
    return path;
}

static enum rc run(const char *command, bool wrap, uint64_t ms, char out[32], size_t *n,
                   struct err *err)
{
    return key_command_run(command, wrap, ms * 1000000, "some input", 10, out, 32, n, err);
}

TEST(it_gets_its_input_its_words_and_the_operation)
{
    struct err err = ERR_INIT;
    char out[32];
    size_t n = 0;
    CLEANUP(mem_freep)
    char *path =
        script("k", "#!/bin/sh\nprintf '%s|%s|%s|' \"$CHREK_KEY_OPERATION\" \"$1\" \"$2\"; cat\n");
    CLEANUP(mem_freep) char *command = mem_asprintf("  %s  a 'b ", path);
    CHECK_OK(run(command, true, 20000, out, &n, &err));
    CHECK(n == 20 && memcmp(out, "wrap|a|'b|some input", 20) == 0);
    CHECK_OK(run(command, false, 20000, out, &n, &err));
    CHECK(n == 22 && memcmp(out, "unwrap|a|'b|some input", 22) == 0);
}

TEST(what_it_does_wrong_is_told_without_its_answer)
{
    static const struct {
        const char *text;
        enum rc rc;
        const char *want;
    } cases[] = {
        {"#!/bin/sh\necho hunter2; exit 3\n", RC_UNAVAILABLE, "failed with status 3"},
        {"#!/bin/sh\necho hunter2; kill -9 $$\n", RC_UNAVAILABLE, "failed with status 137"},
        {"#!/bin/sh\nexit 0\n", RC_CORRUPT, "answered nothing"},
        {"#!/bin/sh\nprintf hunter2hunter2hunter2hunter2hunter2\n", RC_CORRUPT, "more than 32"},
        {"#!/bin/sh\necho hunter2; exec sleep 1000\n", RC_TIMEOUT, "in time"},
        {"#!/bin/sh\necho hunter2; exec >&-; sleep 1000\n", RC_TIMEOUT, "did not end in time"},
        {"#!/bin/sh\n(sleep 1000) & echo hunter2; exit 0\n", RC_TIMEOUT, "in time"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        char out[32];
        size_t n = 7;
        CLEANUP(mem_freep) char *path = script("k", cases[i].text);
        CHECK_RC(run(path, false, cases[i].rc == RC_TIMEOUT ? 300 : 20000, out, &n, &err),
                 cases[i].rc);
        if (!strstr(err.msg, cases[i].want) || strstr(err.msg, "hunter"))
            test_fail(__FILE__, __LINE__, "case %zu said '%s'", i, err.msg);
        CHECK(n == 7 && !memchr(out, 'h', sizeof(out)));
    }
}

TEST(what_cannot_be_started_says_so)
{
    struct err err = ERR_INIT;
    char out[32];
    size_t n = 0;
    CHECK_RC(run("/no/such/program", false, 20000, out, &n, &err), RC_UNAVAILABLE);
    CHECK(strstr(err.msg, "cannot be started"));
    CHECK_RC(run(" \t ", false, 20000, out, &n, &err), RC_INVALID);
}
