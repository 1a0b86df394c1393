#include "codec/name.h"
#include "harness/test.h"

#include <string.h>

TEST(ids_are_plain_file_names)
{
    static const char *const good[] = {"a", "abc123def456", "x.y", "My_Model-1",
                                       "e5962d34ba272638"};
    static const char *const bad[] = {"",      ".",    "..",     ".a",    "-a",  "a/b",
                                      "a\\b",  "a..b", "a\nb",   "a\x7f", "tmp", "restore-logs",
                                      "packs", "keys", "a.tmp-1"};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(good); i++)
        CHECK_OK(name_check_id(good[i], &err));
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(name_check_id(bad[i], &err), RC_INVALID);
    char longest[257];
    memset(longest, 'x', sizeof(longest));
    longest[255] = '\0';
    CHECK(name_is_id(longest));
    longest[255] = 'x';
    longest[256] = '\0';
    CHECK(!name_is_id(longest));
}
