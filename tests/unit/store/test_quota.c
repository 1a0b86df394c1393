#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/gc.h"
#include "store/quota.h"
#include "store/workingset.h"
#include "unit/store/checkpoints.h"

#include <fcntl.h>

static uint64_t used(struct store *s)
{
    struct err err = ERR_INIT;
    uint64_t bytes = 0;
    CHECK_OK(store_used(s, &bytes, &err));
    return bytes;
}

TEST(a_quota_is_the_stores_and_can_be_lifted)
{
    struct err err = ERR_INIT;
    uint64_t quota = 7;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(store_quota(s, &quota, &err));
    CHECK_INT(quota, 0);
    CHECK_OK(store_fits(s, UINT64_MAX, &err));
    CHECK_OK(store_set_quota(s, 1000, &err));
    CLEANUP(store_freep) struct store *another = checkpoints_open();
    CHECK_OK(store_quota(another, &quota, &err));
    CHECK_INT(quota, 1000);
    CHECK_OK(store_fits(s, 1000, &err));
    CHECK_RC(store_fits(s, 1001, &err), RC_NO_SPACE);
    CHECK_OK(store_set_quota(s, 0, &err));
    CHECK_OK(store_set_quota(s, 0, &err));
    CHECK_OK(store_fits(s, 1001, &err));
}

TEST(a_quota_that_is_no_number_is_refused)
{
    struct err err = ERR_INIT;
    uint64_t quota = 7;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" STORE_QUOTA, test_dir());
    static const char *const bad[] = {"", "0", "ten", "-1", "1 2", "99999999999999999999999"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_OK(fs_write_whole(AT_FDCWD, path, bad[i], strlen(bad[i]), 0600, &err));
        CHECK_RC(store_quota(s, &quota, &err), RC_CORRUPT);
        CHECK_RC(store_fits(s, 1, &err), RC_CORRUPT);
        CHECK_INT(quota, 7);
    }
}

TEST(packs_and_files_count)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_INT(used(s), 0);
    CHECK_OK(checkpoint_make(s, "one", 1000, 64, &err));
    uint64_t one = used(s);
    CHECK(one > 0);
    CHECK_OK(checkpoint_make(s, "same", 1000, 64, &err)); /* the same pages */
    CHECK(used(s) > one && used(s) < 2 * one);
    CHECK_OK(store_delete(s, "same", &err));
    CHECK_OK(store_delete(s, "one", &err));
    CHECK(used(s) > 0);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_INT(used(s), 0);
}

TEST(working_sets_count)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(mem_freep) char *dir = mem_asprintf("%s/" WORKINGSET_DIR, store_path(s));
    CLEANUP(mem_freep) char *record = mem_asprintf("%s/one", dir);
    CHECK_OK(fs_mkdirs(dir, 0700, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, record, "12345", 5, 0600, &err));
    CHECK_INT(used(s), 5);
}

TEST(what_does_not_fit_is_not_published)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(checkpoint_make(s, "one", 1000, 64, &err));
    uint64_t one = used(s);
    CHECK_OK(store_set_quota(s, one + one / 2, &err));
    CHECK_RC(checkpoint_make(s, "two", 9000, 64, &err), RC_NO_SPACE);
    CHECK(strstr(err.msg, "more than its quota of") && strstr(err.msg, "chrek configure --quota"));
    CHECK_RC(store_find(s, "two", &e, &err), RC_NOT_FOUND);
    CHECK_OK(checkpoint_check(s, "one", 1000, 64, &err));
    CHECK_OK(store_gc(s, false, &c, &err)); /* of the attempt nothing is left */
    CHECK_INT(used(s), one);
    CHECK_OK(store_set_quota(s, 4 * one, &err));
    CHECK_OK(checkpoint_make(s, "two", 9000, 64, &err));
}
