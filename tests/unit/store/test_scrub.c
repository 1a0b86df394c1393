#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/scrub.h"
#include "unit/store/checkpoints.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOME 64U

/* Two checkpoints that share half of their pages. */
static void make_two(struct store *s)
{
    struct err err = ERR_INIT;
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "two", 1000 + SOME / 2, SOME, &err));
}

/* The same bytes in another store. */
static void copy_store(const char *from, const char *to)
{
    CLEANUP(mem_freep) char *a = mem_asprintf("%s/%s/.", test_dir(), from);
    CLEANUP(mem_freep) char *b = mem_asprintf("%s/%s", test_dir(), to);
    pid_t pid = fork();
    if (pid == 0) {
        (void)execlp("cp", "cp", "-a", a, b, (char *)NULL);
        _exit(1);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void flip(struct store *s, const char *path, size_t at)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s/%s", store_path(s), path);
    CLEANUP(buf_done) struct buf text = {.max = (size_t)1 << 30};
    CHECK_OK(fs_read_file(AT_FDCWD, whole, (size_t)1 << 30, &text, &err));
    text.data[at < text.len ? at : text.len - 1] ^= 1;
    CHECK_OK(fs_write_whole(AT_FDCWD, whole, text.data, text.len, 0600, &err));
}

static void drop(struct store *s, const char *path)
{
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s/%s", store_path(s), path);
    CHECK(unlink(whole) == 0);
}

/* The packs of checkpoint "one", all of which "two" may need as well. */
static char *first_pack(struct store *s)
{
    struct err err = ERR_INIT;
    const struct page_reader *pages = NULL;
    char key[PACK_KEY_LEN];
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(store_find(s, "one", &e, &err));
    CHECK_OK(store_entry_pages(e, &pages, &err));
    pack_key(page_reader_memory(pages)->packs[0].name, key);
    return mem_strdup(key);
}

static void scrub_all(struct store *s, struct scrub *out)
{
    struct err err = ERR_INIT;
    CHECK_OK(store_scrub(s, 3, NULL, out, &err));
    CHECK_INT(out->n_checkpoints, 2);
    CHECK_STR(out->checkpoints[0].name, "one");
    CHECK_STR(out->checkpoints[1].name, "two");
}

static const char *only_bad_pack(const struct scrub *x)
{
    const char *why = NULL;
    for (size_t i = 0; i < x->n_packs; i++)
        if (x->packs[i].rc) {
            CHECK(!why && x->packs[i].rc == RC_CORRUPT);
            why = x->packs[i].why;
        }
    CHECK(why);
    return why;
}

TEST(a_sound_store_is_found_sound_and_read_once)
{
    struct err err = ERR_INIT;
    uint64_t done = 0, bytes = 0;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(scrub_done) struct scrub x = {0};
    make_two(s);
    CHECK_OK(store_scrub(s, 2, &done, &x, &err));
    CHECK(x.damaged == 0 && x.n_checkpoints == 2 && x.n_packs > 0);
    for (size_t i = 0; i < x.n_packs; i++)
        bytes += x.packs[i].bytes;
    for (size_t i = 0; i < 2; i++) {
        CHECK(!x.checkpoints[i].why && x.checkpoints[i].bytes > 0);
        bytes += x.checkpoints[i].bytes;
    }
    CHECK(done > 0 && done <= bytes);
}

TEST(damage_is_told_of_the_pack_and_of_who_needs_it)
{
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(scrub_done) struct scrub x = {0};
    make_two(s);
    CLEANUP(mem_freep) char *key = first_pack(s);
    flip(s, key, 5);
    scrub_all(s, &x);
    CHECK(strstr(only_bad_pack(&x), "the chunk at byte 0 is damaged"));
    CHECK(x.checkpoints[0].rc == RC_CORRUPT && strstr(x.checkpoints[0].why, "memory is damaged"));
}

TEST(a_pack_whose_index_is_damaged_still_serves_its_checkpoints)
{
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(scrub_done) struct scrub x = {0};
    make_two(s);
    CLEANUP(mem_freep) char *key = first_pack(s);
    flip(s, key, SIZE_MAX - 1);
    scrub_all(s, &x);
    CHECK(only_bad_pack(&x));
    CHECK(x.damaged == 1 && !x.checkpoints[0].why && !x.checkpoints[1].why);
}

TEST(missing_packs_and_damaged_files_are_told)
{
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(scrub_done) struct scrub x = {0};
    make_two(s);
    CLEANUP(mem_freep) char *key = first_pack(s);
    drop(s, key);
    flip(s, "two/core-1.img", 2);
    scrub_all(s, &x);
    CHECK(strstr(x.checkpoints[0].why, "is missing"));
    CHECK(strstr(x.checkpoints[1].why, "'core-1.img' is damaged"));
    CHECK_INT(x.damaged, 2);
}

/* ---- repair ---- */

static const struct {
    const char *what, *file; /* NULL: the pack */
    size_t at;               /* SIZE_MAX: remove it */
} damages[] = {
    {"a chunk", NULL, 9},
    {"an index", NULL, SIZE_MAX - 1},
    {"a missing pack", NULL, SIZE_MAX},
    {"an image", "one/core-1.img", 3},
    {"a missing image", "one/core-1.img", SIZE_MAX},
    {"the memory map", "one/memory", 70},
    {"a missing memory map", "one/memory", SIZE_MAX},
    {"the manifest", "one/manifest", 1},
    {"the metadata", "one/metadata.json", 20},
    {"a missing marker", "one/checkpoint.done", SIZE_MAX},
};

TEST(whatever_is_damaged_comes_from_the_other_store)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open_in("s");
    make_two(s);
    CLEANUP(mem_freep) char *key = first_pack(s);
    CLEANUP(store_freep) struct store *other = checkpoints_open_in("other");
    copy_store("s", "other");
    for (size_t i = 0; i < ARRAY_LEN(damages); i++) {
        struct repair r = {0};
        const char *path = damages[i].file ? damages[i].file : key;
        if (damages[i].at == SIZE_MAX)
            drop(s, path);
        else
            flip(s, path, damages[i].at);
        if (store_repair(s, other, "one", &r, &err) != RC_OK)
            test_fail(__FILE__, __LINE__, "%s: %s", damages[i].what, err.msg);
        if ((r.packs == 1) != !damages[i].file || (r.files > 0) != (damages[i].file != NULL))
            test_fail(__FILE__, __LINE__, "%s: %zu packs, %zu files", damages[i].what, r.packs,
                      r.files);
        CHECK(r.bytes > 0);
        CHECK_OK(checkpoint_check(s, "one", 1000, SOME, &err));
        CHECK_OK(checkpoint_check(s, "two", 1000 + SOME / 2, SOME, &err));
        CHECK_OK(store_repair(s, other, "one", &r, &err));
        CHECK(r.packs == 0 && r.files == 0 && r.bytes == 0);
    }
}

TEST(what_the_other_store_has_damaged_is_not_brought_in)
{
    struct err err = ERR_INIT;
    struct repair r = {.packs = 77};
    CLEANUP(store_freep) struct store *s = checkpoints_open_in("s");
    make_two(s);
    CLEANUP(mem_freep) char *key = first_pack(s);
    CLEANUP(store_freep) struct store *other = checkpoints_open_in("other");
    copy_store("s", "other");
    flip(s, key, 9);
    flip(other, key, 11);
    CHECK_RC(store_repair(s, other, "one", &r, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "of the other store") && r.packs == 77);
    flip(other, key, 11);
    flip(other, key, SIZE_MAX - 1);
    CHECK_RC(store_repair(s, other, "one", &r, &err), RC_CORRUPT);
    drop(other, key);
    CHECK_RC(store_repair(s, other, "one", &r, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "is whole in neither store"));
    flip(s, "two/core-1.img", 1);
    flip(other, "two/core-1.img", 2);
    CHECK_RC(store_repair(s, other, "two", &r, &err), RC_CORRUPT);
}

TEST(another_checkpoint_of_the_same_id_is_none)
{
    struct err err = ERR_INIT;
    struct repair r = {0};
    CLEANUP(store_freep) struct store *s = checkpoints_open_in("s");
    CLEANUP(store_freep) struct store *other = checkpoints_open_in("other");
    make_two(s);
    make_two(other);
    flip(s, "one/core-1.img", 1);
    CHECK_RC(store_repair(s, other, "one", &r, &err), RC_CONFLICT);
    CHECK(strstr(err.msg, "is another checkpoint"));
    CHECK_OK(store_delete(other, "one", &err));
    CHECK_RC(store_repair(s, other, "one", &r, &err), RC_NOT_FOUND);
}

/* A repair that fails or dies anywhere can be done again, and never spoils the other checkpoint. */
TEST(a_repair_that_fails_or_dies_anywhere_can_be_done_again)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open_in("s");
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "two", 9000, SOME, &err));
    CLEANUP(mem_freep) char *key = first_pack(s);
    CLEANUP(store_freep) struct store *other = checkpoints_open_in("other");
    copy_store("s", "other");
    for (unsigned i = 0;; i += 5) {
        flip(s, key, 9);
        flip(s, "one/core-1.img", 1);
        pid_t pid = fork();
        if (pid == 0) {
            struct repair r;
            fault_arm(i, i % 2 ? FAULT_CRASH : FAULT_FAIL);
            (void)!store_repair(s, other, "one", &r, &err);
            bool hit = fault_passed() > i;
            fault_disarm();
            _exit(hit ? FAULT_EXIT_STATUS : 0);
        }
        int status = 0;
        struct repair r;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        CHECK_OK(store_repair(s, other, "one", &r, &err));
        CHECK_OK(checkpoint_check(s, "one", 1000, SOME, &err));
        if (WEXITSTATUS(status) == 0)
            break;
    }
    CHECK_OK(checkpoint_check(s, "two", 9000, SOME, &err));
}
