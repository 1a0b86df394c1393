#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/gc.h"
#include "store/pack.h"
#include "unit/store/checkpoints.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Number of pages of a checkpoint of these tests. */
#define SOME 64U

static size_t count_packs(struct store *s)
{
    char *keys[64];
    size_t n = sample_keys(store_backend(s), PACK_PREFIX, keys);
    for (size_t i = 0; i < n; i++)
        mem_freep(&keys[i]);
    return n;
}

TEST(only_what_nobody_refers_to_is_collected)
{
    struct err err = ERR_INIT;
    struct store_collected c, dry;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "two", 1000 + SOME / 2, SOME, &err)); /* shares half of them */
    CHECK_OK(checkpoint_make(s, "three", 5000, SOME, &err));
    size_t all = count_packs(s);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(c.packs == 0 && c.bytes == 0 && c.kept == all && c.kept_bytes > 0);
    CHECK_OK(store_delete(s, "three", &err));
    CHECK_OK(store_delete(s, "one", &err));
    CHECK_OK(store_gc(s, true, &dry, &err));
    CHECK(dry.packs > 0 && count_packs(s) == all);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(c.packs == dry.packs && c.bytes == dry.bytes && c.kept == dry.kept);
    CHECK_INT(count_packs(s), all - c.packs);
    CHECK_OK(checkpoint_check(s, "two", 1000 + SOME / 2, SOME, &err));
    CHECK_OK(store_delete(s, "two", &err));
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_INT(count_packs(s), 0);
}

TEST(a_store_without_packs_stays_as_it_is)
{
    struct err err = ERR_INIT;
    struct store_collected c = {.packs = 9};
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(c.packs == 0 && c.kept == 0);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/packs", test_dir());
    CHECK(faccessat(AT_FDCWD, path, F_OK, 0) < 0);
}

TEST(nothing_is_collected_while_a_checkpoint_is_made)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CHECK_OK(store_delete(s, "one", &err));
    size_t all = count_packs(s);
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    CLEANUP(store_hold_freep) struct store_hold *another = NULL;
    CHECK_OK(store_hold_packs(s, false, &hold, &err));
    CHECK_OK(store_hold_packs(s, false, &another, &err));
    CHECK_RC(store_gc(s, false, &c, &err), RC_UNAVAILABLE);
    CHECK(strstr(err.msg, "checkpoints are being made"));
    store_hold_freep(&hold);
    CHECK_RC(store_gc(s, true, &c, &err), RC_UNAVAILABLE);
    CHECK_INT(count_packs(s), all);
    store_hold_freep(&another);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_INT(count_packs(s), 0);
}

TEST(what_is_read_is_kept_until_nobody_reads_it)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    const struct page_reader *pages = NULL;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(store_find(s, "one", &e, &err));
    CHECK_OK(store_delete(s, "one", &err));
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_INT(c.packs, 0);
    CHECK_OK(store_entry_pages(e, &pages, &err)); /* its packs are opened only now */
    CHECK_OK(store_verify(e, STORE_ALL, 1, NULL, &err));
}

static void read_map(const char *id, struct buf *out)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s/" MEMORY_NAME, test_dir(), id);
    CHECK_OK(fs_read_file(AT_FDCWD, path, MEMORY_MAX, out, &err));
}

static void write_map(const char *id, const struct buf *map)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s/" MEMORY_NAME, test_dir(), id);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, map->data, map->len, 0600, &err));
}

TEST(a_damaged_checkpoint_stops_the_collection_and_is_named)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    CLEANUP(buf_done) struct buf map = {.max = MEMORY_MAX};
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "good", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "bad", 5000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "gone", 9000, SOME, &err));
    CHECK_OK(store_delete(s, "gone", &err));
    size_t all = count_packs(s);
    read_map("good", &map); /* one that can be read, but names other packs */
    write_map("bad", &map);
    CHECK_RC(store_gc(s, false, &c, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "'bad'") && strstr(err.msg, "does not match the manifest"));
    map.data[0] ^= 1; /* and one that cannot */
    write_map("bad", &map);
    CHECK_RC(store_gc(s, false, &c, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "'bad'"));
    CHECK_INT(count_packs(s), all);
    CHECK_OK(store_delete(s, "bad", &err));
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_OK(checkpoint_check(s, "good", 1000, SOME, &err));
}

TEST(an_unfinished_checkpoint_keeps_its_packs)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    size_t all = count_packs(s);
    CLEANUP(mem_freep) char *marker = mem_asprintf("%s/one/checkpoint.done", test_dir());
    CHECK(unlink(marker) == 0);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_INT(count_packs(s), all);
}

TEST(a_count_without_some_says_what_a_collection_does_when_they_are_gone)
{
    struct err err = ERR_INIT;
    struct store_collected would, done;
    char id[] = "two", *ids[] = {id, NULL}, *none[] = {NULL};
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "two", 5000, SOME, &err));
    size_t all = count_packs(s);
    CHECK_OK(store_gc_without(s, none, &would, &err));
    CHECK_INT(would.packs, 0);
    CHECK_OK(store_gc_without(s, ids, &would, &err));
    CHECK_INT(count_packs(s), all);
    CHECK_OK(checkpoint_check(s, "two", 5000, SOME, &err));
    CHECK_OK(store_delete(s, "two", &err));
    CHECK_OK(store_gc(s, false, &done, &err));
    CHECK(would.packs == done.packs && would.packs > 0 && would.bytes == done.bytes);
    CHECK(would.kept == done.kept && would.kept_bytes == done.kept_bytes);
}

/* ---- torture ---- */

static struct store *open_with_kept(void)
{
    struct err err = ERR_INIT;
    struct store *s = checkpoints_open();
    CHECK_OK(checkpoint_make(s, "kept", 1000, SOME, &err));
    return s;
}

static void make_garbage(struct store *s, unsigned round)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    (void)snprintf(name, sizeof(name), "%032x", round);
    pack_key(name, key);
    CHECK_OK(backend_put(store_backend(s), key, "nobody's", 8, &err));
}

TEST(a_collection_that_fails_anywhere_takes_no_pack_that_is_needed)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_with_kept();
    for (unsigned i = 0;; i++) {
        struct store_collected c;
        make_garbage(s, i);
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = store_gc(s, false, &c, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK(rc == RC_OK || hit);
        CHECK_INT(test_open_fds(), fds);
        CHECK_OK(checkpoint_check(s, "kept", 1000, SOME, &err));
        if (!hit)
            break;
    }
}

TEST(a_collection_that_dies_anywhere_takes_no_pack_that_is_needed)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_with_kept();
    for (unsigned i = 0;; i++) {
        struct store_collected c;
        make_garbage(s, i);
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(i, FAULT_CRASH);
            (void)!store_gc(s, false, &c, &err);
            fault_disarm();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_OK(checkpoint_check(s, "kept", 1000, SOME, &err));
        if (WEXITSTATUS(status) == 0)
            break;
    }
}
