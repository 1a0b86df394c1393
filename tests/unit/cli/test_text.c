#include "base/compiler.h"
#include "cli/text.h"
#include "harness/test.h"

static void check_words(size_t max, const char *want)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    char a[] = "caf\xc3\xa9", b[] = "x\033[2Jy", *words[] = {a, b, NULL};
    text_words(&out, words, max);
    CHECK_STR(buf_str(&out), want);
}

TEST(control_characters_never_reach_a_terminal)
{
    check_words(60, "caf\xc3\xa9 x?[2Jy");
}

TEST(long_command_lines_are_cut_between_characters)
{
    check_words(12, "caf\xc3\xa9 x?[2Jy");
    check_words(11, "caf\xc3\xa9 x?...");
    check_words(7, "caf...");
    check_words(1, "...");
}

TEST(no_words_are_no_text)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    text_words(&out, NULL, 10);
    CHECK_STR(buf_str(&out), "");
}
