#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/recent.h"
#include "unit/store/checkpoints.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Checkpoints appear one after another; the clock of a file system may be coarse. */
static void make_aged(struct store *s, const char *id, uint64_t first, time_t age)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", test_dir(), id);
    struct timespec times[2] = {{.tv_sec = time(NULL) - age}, {.tv_sec = time(NULL) - age}};
    CHECK_OK(checkpoint_make(s, id, first, 20, &err));
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
}

static bool names_packs_of(struct store *s, const char *id, char *const *names, size_t n)
{
    struct err err = ERR_INIT;
    const struct page_reader *pages = NULL;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(store_find(s, id, &e, &err));
    CHECK_OK(store_entry_pages(e, &pages, &err));
    const struct memory *m = page_reader_memory(pages);
    for (size_t i = 0; i < m->n_packs; i++) {
        size_t k = 0;
        while (k < n && strcmp(names[k], m->packs[i].name) != 0)
            k++;
        if (k == n)
            return false;
    }
    return true;
}

TEST(packs_of_the_box_come_first_then_of_the_newest)
{
    struct err err = ERR_INIT;
    char **names = NULL;
    size_t n = 0;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    make_aged(s, "mine", 1000, 500);
    make_aged(s, "old", 2000, 400);
    make_aged(s, "newer", 3000, 300);
    make_aged(s, "newest", 4000, 200);
    CHECK_OK(store_recent_packs(s, "box-mine", &names, &n, &err));
    CHECK(n > 0 && !names[n]);
    CHECK(names_packs_of(s, "mine", names, n) && names_packs_of(s, "newest", names, n));
    CHECK(names_packs_of(s, "newer", names, n) && !names_packs_of(s, "old", names, n));
    CHECK(names_packs_of(s, "mine", names, 2) || names_packs_of(s, "mine", names, 1));
    store_free_ids(names);
    CHECK_OK(store_recent_packs(s, NULL, &names, &n, &err));
    CHECK(!names_packs_of(s, "mine", names, n) && names_packs_of(s, "newest", names, n));
    store_free_ids(names);
}

TEST(what_cannot_be_read_counts_for_nothing)
{
    struct err err = ERR_INIT;
    char **names = NULL;
    size_t n = 9;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(store_recent_packs(s, "box-mine", &names, &n, &err));
    CHECK(n == 0 && names && !names[0]);
    store_free_ids(names);
    make_aged(s, "mine", 1000, 0);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/mine/memory", test_dir());
    CHECK_OK(fs_write_whole(AT_FDCWD, path, "x", 1, 0600, &err));
    CHECK_OK(store_recent_packs(s, "box-mine", &names, &n, &err));
    CHECK_INT(n, 0);
    store_free_ids(names);
}

static void check_newest(struct store *s, const char *name, const char *want)
{
    CLEANUP(store_entry_freep) struct store_entry *e = store_recent_entry(s, name);
    if (!want)
        CHECK(!e);
    else
        CHECK_STR(store_entry_id(e), want);
}

TEST(the_newest_of_a_box_is_found_by_its_age)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    check_newest(s, "box-mine", NULL);
    make_aged(s, "mine", 1000, 500);
    make_aged(s, "other", 2000, 400);
    check_newest(s, "box-mine", "mine");
    check_newest(s, "box-mi", NULL);
    check_newest(s, NULL, NULL);
    CHECK_OK(store_delete(s, "mine", &err));
    check_newest(s, "box-mine", NULL);
    make_aged(s, "mine", 3000, 0);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/mine/manifest", test_dir());
    CHECK_OK(fs_write_whole(AT_FDCWD, path, "x", 1, 0600, &err));
    check_newest(s, "box-mine", NULL); /* it cannot be used */
}
