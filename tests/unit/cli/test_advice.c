#include "base/compiler.h"
#include "cli/advice.h"
#include "harness/test.h"

static void check_for(const char *command, enum rc rc, const char *hint)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf p = BUF_INIT;
    CLEANUP(buf_done) struct buf h = BUF_INIT;
    CHECK(err_set(&err, rc, "x") == rc);
    advice_of(&err, command, true, &p, &h);
    if (!strstr(buf_str(&h), hint))
        test_fail(__FILE__, __LINE__, "%s: %s", command, buf_str(&h));
}

static void check(enum rc rc, const char *msg, const char *problem, const char *hint)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf p = BUF_INIT;
    CLEANUP(buf_done) struct buf h = BUF_INIT;
    CHECK(err_set(&err, rc, "%s", msg) == rc);
    advice_of(&err, "run", false, &p, &h);
    CHECK_STR(buf_str(&p), problem);
    CHECK_STR(buf_str(&h), hint);
}

TEST(a_message_that_says_the_remedy_is_split)
{
    check(RC_INVALID, "unknown option '--x'; did you mean --y?", "unknown option '--x'",
          "did you mean --y?");
    check(RC_IO, "a; b; c", "a; b", "c");
}

TEST(what_criu_said_belongs_to_the_problem)
{
    check(RC_UNSUPPORTED,
          "dump: the program has open TCP connections; use --tcp-established [criu: Connected TCP; "
          "socket]",
          "dump: the program has open TCP connections [criu: Connected TCP; socket]",
          "use --tcp-established");
}

TEST(a_message_without_remedy_gets_that_of_its_code)
{
    check(RC_INVALID, "bad", "bad", "see `chrek run --help`");
    check(RC_DENIED, "no", "no", "run it as root: sudo chrek ...");
}

TEST(a_file_of_others_is_no_checkpoint_of_ours)
{
    check_for("import", RC_NOT_FOUND, "name of the file");
    check_for("import", RC_CORRUPT, "fetch the file once more");
    check_for("verify", RC_CORRUPT, "--repair");
    check_for("inspect", RC_CORRUPT, "chrek verify ID");
    check_for("export", RC_NO_SPACE, "FILE on another disk");
    check_for("run", RC_NO_SPACE, "another --store");
}

TEST(every_failure_has_a_hint)
{
    for (int rc = RC_OK + 1; rc < RC_COUNT_; rc++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf p = BUF_INIT;
        CLEANUP(buf_done) struct buf h = BUF_INIT;
        CHECK((int)err_set(&err, (enum rc)rc, "x") == rc);
        advice_of(&err, NULL, true, &p, &h);
        CHECK_STR(buf_str(&p), "x");
        CHECK(rc == RC_CANCELLED || h.len > 0); /* who has asked to stop needs no advice */
    }
}
