#include "base/err.h"
#include "harness/test.h"

#include <string.h>

TEST(context_comes_first_and_what_fits_of_the_rest)
{
    struct err err = ERR_INIT;
    char longest[2 * sizeof(err.msg)];
    CHECK_RC(err_set(&err, RC_DENIED, "no key"), RC_DENIED);
    CHECK_RC(err_ctx(&err, RC_DENIED, "open '%s'", "x"), RC_DENIED);
    CHECK_STR(err.msg, "open 'x': no key");
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    CHECK_RC(err_ctx(&err, RC_DENIED, "%s", longest), RC_DENIED);
    CHECK_INT(strlen(err.msg), sizeof(err.msg) - 1);
    CHECK_RC(err_ctx(&err, RC_OK, "not a failure"), RC_OK);
    CHECK_RC(err_set(NULL, RC_IO, "nobody listens"), RC_IO);
}

TEST(a_system_call_s_reason_is_added)
{
    struct err err = ERR_INIT;
    errno = ENOSPC;
    CHECK_RC(err_sys(&err, "write"), RC_NO_SPACE);
    CHECK_INT(err.sys, ENOSPC);
    CHECK_STR(err.msg, "write: No space left on device");
}

TEST(nothing_in_a_message_steers_a_terminal)
{
    struct err err = ERR_INIT;
    CHECK_RC(err_set(&err, RC_CORRUPT, "made on '%s'", "\x1b[31mred\a.\r.\x7f."), RC_CORRUPT);
    CHECK_STR(err.msg, "made on '?[31mred?.?.?.'");
    CHECK_RC(err_ctx(&err, RC_CORRUPT, "%s",
                     "a\x08\tb\n\xc2\x9b"
                     "1m caf\xc3\xa9"),
             RC_CORRUPT);
    CHECK_STR(err.msg, "a?\tb\n??1m caf\xc3\xa9: made on '?[31mred?.?.?.'");
}
