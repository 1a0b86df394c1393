#include "base/compiler.h"
#include "cli/advice.h"
#include "harness/test.h"

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
