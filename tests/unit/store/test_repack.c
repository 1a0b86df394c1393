#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/gc.h"
#include "store/repack.h"
#include "unit/store/checkpoints.h"
#include "unit/store/samples.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define SOME 128U  /* pages of a checkpoint */
#define STEPS 10U  /* checkpoints of a history, each with ... */
#define FRESH 128U /* ... so many new pages */

static const struct repack_options all = {.dry = false};

/* Checkpoints c-0, c-1, …: each has the pages of the one before, and new ones. */
static void make_history(struct store *s)
{
    struct err err = ERR_INIT;
    for (unsigned i = 0; i < STEPS; i++) {
        CLEANUP(mem_freep) char *id = mem_asprintf("c-%u", i);
        CHECK_OK(checkpoint_make(s, id, 1000, FRESH * (i + 1), &err));
    }
}

static void check_history(struct store *s)
{
    struct err err = ERR_INIT;
    for (unsigned i = 0; i < STEPS; i++) {
        CLEANUP(mem_freep) char *id = mem_asprintf("c-%u", i);
        CHECK_OK(checkpoint_check(s, id, 1000, FRESH * (i + 1), &err));
    }
}

static struct memory_totals totals_of(struct store *s, const char *id, size_t *out_packs)
{
    struct err err = ERR_INIT;
    const struct page_reader *pages = NULL;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(store_find(s, id, &e, &err));
    CHECK_OK(store_entry_pages(e, &pages, &err));
    *out_packs = page_reader_memory(pages)->n_packs;
    return memory_totals(page_reader_memory(pages));
}

static uint64_t collect(struct store *s)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    CHECK_OK(store_gc(s, false, &c, &err));
    return c.kept_bytes;
}

static void repack(struct store *s, struct repacked *r)
{
    struct err err = ERR_INIT;
    CHECK_OK(store_repack(s, &all, r, &err));
}

TEST(a_scattered_checkpoint_lies_in_one_place_afterwards)
{
    size_t packs = 0;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    make_history(s);
    uint64_t before = collect(s);
    CHECK(totals_of(s, "c-9", &packs).places >= STEPS && packs >= STEPS);
    repack(s, &r);
    CHECK(r.checkpoints == STEPS && r.n_left == 0 && r.moved > 0 && r.freed > 0);
    uint64_t after = collect(s);
    CHECK(after < before + before / 10 && after == r.moved);
    CHECK(totals_of(s, "c-9", &packs).places == 1 && packs == 1);
    check_history(s);
}

TEST(a_second_repack_finds_nothing_to_do)
{
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked first = {0};
    CLEANUP(repacked_done) struct repacked second = {0};
    make_history(s);
    repack(s, &first);
    (void)collect(s);
    repack(s, &second);
    CHECK(first.checkpoints == STEPS && second.checkpoints == 0 && second.moved == 0);
}

TEST(the_space_of_what_nobody_needs_returns)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    CHECK_OK(checkpoint_make(s, "old", 1000, 1024, &err));
    CHECK_OK(checkpoint_make(s, "new", 1000 + 960, SOME, &err)); /* half of it is in old's packs */
    CHECK_OK(store_delete(s, "old", &err));
    uint64_t before = collect(s);
    repack(s, &r);
    uint64_t after = collect(s);
    /* How much there was is for chance to say: each thread that has written "old" had a pack. */
    CHECK(after <= before && after < (uint64_t)SOME * MEMORY_PAGE);
    CHECK_OK(checkpoint_check(s, "new", 1000 + 960, SOME, &err));
}

TEST(a_dry_run_counts_and_does_nothing)
{
    struct err err = ERR_INIT;
    struct repack_options dry = {.dry = true};
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked would = {0};
    CLEANUP(repacked_done) struct repacked r = {0};
    make_history(s);
    uint64_t before = collect(s);
    CHECK_OK(store_repack(s, &dry, &would, &err));
    CHECK_INT(collect(s), before);
    repack(s, &r);
    CHECK(would.checkpoints == r.checkpoints && would.freed == r.freed);
    CHECK(would.moved > r.moved * 9 / 10 && would.moved < r.moved * 11 / 10);
}

TEST(who_reads_goes_on_with_the_old_packs)
{
    struct err err = ERR_INIT;
    size_t packs = 0;
    const struct page_reader *pages = NULL;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    CLEANUP(store_entry_freep) struct store_entry *opened = NULL;
    CLEANUP(store_entry_freep) struct store_entry *found = NULL;
    make_history(s);
    CHECK_OK(store_find(s, "c-9", &opened, &err));
    CHECK_OK(store_entry_pages(opened, &pages, &err));
    CHECK_OK(store_find(s, "c-8", &found, &err)); /* its packs are opened only later */
    repack(s, &r);
    (void)collect(s);
    CHECK_OK(store_verify(opened, STORE_ALL, 1, NULL, &err));
    CHECK_OK(store_verify(found, STORE_ALL, 1, NULL, &err));
    check_history(s);
    CHECK_INT(totals_of(s, "c-9", &packs).places, 1);
}

/* Stage a copy of a checkpoint that is to take its place. */
static struct store_staging *stage(struct store *s, const struct store_entry *e)
{
    struct err err = ERR_INIT;
    struct store_staging *g = NULL;
    CHECK_OK(store_begin(s, store_entry_id(e), false, &g, &err));
    store_staging_instead(g, e);
    CHECK_OK(store_entry_copy(e, MEMORY_NAME, store_staging_fd(g), &err));
    CHECK_OK(store_entry_copy(e, "core-1.img", store_staging_fd(g), &err));
    return g;
}

TEST(what_has_been_replaced_or_deleted_meanwhile_is_not_brought_back)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    for (int gone = 0; gone < 2; gone++) {
        CLEANUP(metadata_done) struct metadata m = {.ours = true, .packed = true};
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        CLEANUP(store_abortp) struct store_staging *g = NULL;
        CHECK_OK(checkpoint_make(s, "web", 1000, SOME, &err));
        CHECK_OK(store_find(s, "web", &e, &err));
        g = stage(s, e);
        if (gone)
            CHECK_OK(store_delete(s, "web", &err));
        else
            CHECK_OK(checkpoint_make(s, "web", 5000, SOME, &err));
        CHECK_RC(store_commit(g, &m, true, &err), RC_CONFLICT);
        if (gone)
            CHECK_RC(checkpoint_check(s, "web", 1000, SOME, &err), RC_NOT_FOUND);
        else
            CHECK_OK(checkpoint_check(s, "web", 5000, SOME, &err));
    }
}

TEST(nothing_but_the_map_changes)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    CLEANUP(buf_done) struct buf before = BUF_INIT;
    CLEANUP(buf_done) struct buf after = BUF_INIT;
    CLEANUP(mem_freep) char *log = mem_asprintf("%s/c-3/dump.log", test_dir());
    make_history(s);
    CHECK_OK(fs_write_whole(AT_FDCWD, log, "log", 3, 0600, &err));
    CLEANUP(mem_freep) char *image = mem_asprintf("%s/c-3/core-1.img", test_dir());
    struct stat st;
    CHECK_OK(store_read_file(s, "c-3", METADATA_NAME, METADATA_MAX, &before, &err));
    repack(s, &r);
    CHECK_OK(store_read_file(s, "c-3", METADATA_NAME, METADATA_MAX, &after, &err));
    /* total_bytes counts the map */
    const char *time = strstr(buf_str(&before), "\"created_at\"");
    CHECK(time && strncmp(strstr(buf_str(&after), "\"created_at\""), time, 40) == 0);
    CHECK(strstr(buf_str(&after), "box-c-3"));
    CHECK(stat(log, &st) == 0 && stat(image, &st) == 0);
}

TEST(what_is_damaged_is_not_called_whole_by_being_repacked)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    CLEANUP(mem_freep) char *image = mem_asprintf("%s/c-3/core-1.img", test_dir());
    make_history(s);
    CHECK_OK(fs_write_whole(AT_FDCWD, image, "AN IMAGE", 9, 0600, &err)); /* of the same size */
    repack(s, &r);
    CHECK_RC(checkpoint_check(s, "c-3", 1000, FRESH * 4, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "core-1.img"));
}

TEST(a_damaged_pack_is_named_and_everything_stays)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    char *keys[64];
    make_history(s);
    size_t n = sample_keys(store_backend(s), "packs/", keys), len = 0;
    for (size_t i = 0; i < n; i++) {
        CLEANUP(mem_freep) char *data = sample_read(store_backend(s), keys[i], &len);
        data[len / 3] ^= 1;
        sample_replace(store_backend(s), keys[i], data, len);
        mem_freep(&keys[i]);
    }
    CHECK_RC(store_repack(s, &all, &r, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "checkpoint 'c-9'") && strstr(err.msg, "damaged"));
    CHECK(r.checkpoints == 0);
}

TEST(a_recorded_working_set_stays_in_use)
{
    struct err err = ERR_INIT;
    const struct page_reader *pages = NULL;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(repacked_done) struct repacked r = {0};
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    CLEANUP(workingset_place_done) struct workingset_place at = WORKINGSET_NOWHERE;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    make_history(s);
    CHECK_OK(store_find(s, "c-9", &e, &err));
    CHECK_OK(store_entry_pages(e, &pages, &err));
    const struct workingset_extent x = {.stream = 1, .pages = 7, .first = 30};
    const struct manifest_file *f = manifest_find(store_entry_manifest(e), MEMORY_NAME);
    CHECK_OK(store_entry_record(e, &at, &err));
    CHECK_OK(workingset_write(&at, &f->digest, &x, 1, pages, &err));
    store_entry_freep(&e);
    repack(s, &r);
    CHECK_OK(store_find(s, "c-9", &e, &err));
    CHECK_OK(store_entry_workingset(e, &w, &err));
    CHECK(w.pages == 7 && w.extents[0].first == 30);
}

TEST(object_storage_is_refused_with_a_way_out)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = NULL;
    CLEANUP(repacked_done) struct repacked r = {0};
    CLEANUP(mem_freep) char *url = mem_asprintf("object://%s/remote", test_dir());
    CHECK_OK(store_open(url, &s, &err));
    CHECK_RC(store_repack(s, &all, &r, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "chrek copy"));
}

/* ---- signed ones ---- */

static char *make_pair(const char *name)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf private = BUF_INIT;
    CLEANUP(buf_done) struct buf public = BUF_INIT;
    char *path = mem_asprintf("%s/.%s", test_dir(), name);
    CLEANUP(mem_freep) char *pub = mem_asprintf("%s.pub", path);
    CHECK_OK(signature_generate(&private, &public, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, private.data, private.len, 0600, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, pub, public.data, public.len, 0644, &err));
    return path;
}

static void open_vault(const char *sign, const char *trust, struct vault *out)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *pub = trust ? mem_asprintf("%s.pub", trust) : NULL;
    struct vault_options o = {.sign_key = sign, .trust_key = pub};
    CHECK_OK(vault_open(&o, out, &err));
}

TEST(what_is_signed_is_signed_anew_or_left_alone)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(mem_freep) char *key = make_pair("signer");
    CLEANUP(mem_freep) char *other = make_pair("other");
    CLEANUP(vault_done) struct vault signs = {.keys = NULL};
    CLEANUP(vault_done) struct vault trusts = {.keys = NULL};
    CLEANUP(vault_done) struct vault stranger = {.keys = NULL};
    open_vault(key, NULL, &signs);
    open_vault(NULL, key, &trusts);
    open_vault(other, NULL, &stranger);
    store_use_vault(s, &signs);
    make_history(s);
    const struct vault *useless[] = {NULL, &trusts, &stranger};
    for (size_t i = 0; i < ARRAY_LEN(useless); i++) {
        CLEANUP(repacked_done) struct repacked r = {0};
        store_use_vault(s, useless[i]);
        repack(s, &r);
        CHECK(r.checkpoints == 0 && r.moved == 0 && r.n_left == STEPS);
        CHECK(strstr(r.left[0].why, i < 2 ? "--sign-key" : "trust"));
    }
    CLEANUP(repacked_done) struct repacked r = {0};
    store_use_vault(s, &signs);
    repack(s, &r);
    CHECK(r.checkpoints == STEPS && r.n_left == 0);
    (void)collect(s);
    store_use_vault(s, &trusts);
    check_history(s);
    (void)err;
}

TEST(what_was_not_signed_is_not_signed_by_being_repacked)
{
    struct stat st;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(mem_freep) char *key = make_pair("signer");
    CLEANUP(vault_done) struct vault signs = {.keys = NULL};
    CLEANUP(repacked_done) struct repacked r = {0};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/c-9/" MANIFEST_SIGNATURE, test_dir());
    make_history(s);
    open_vault(key, NULL, &signs);
    store_use_vault(s, &signs);
    repack(s, &r);
    CHECK(r.checkpoints == STEPS && stat(path, &st) < 0);
}

/* ---- torture ---- */

#define FEW 5U /* checkpoints are enough to be scattered */

static struct store *open_few(void)
{
    struct err err = ERR_INIT;
    struct store *s = checkpoints_open();
    for (unsigned i = 0; i < FEW; i++) {
        CLEANUP(mem_freep) char *id = mem_asprintf("c-%u", i);
        CHECK_OK(checkpoint_make(s, id, 1000, 8 * (i + 1), &err));
    }
    return s;
}

static void check_few(struct store *s)
{
    struct err err = ERR_INIT;
    for (unsigned i = 0; i < FEW; i++) {
        CLEANUP(mem_freep) char *id = mem_asprintf("c-%u", i);
        CHECK_OK(checkpoint_check(s, id, 1000, 8 * (i + 1), &err));
    }
}

static void remove_all(void)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open(test_dir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (unsigned i = 0; i < FEW; i++) {
        CLEANUP(mem_freep) char *id = mem_asprintf("c-%u", i);
        CHECK_OK(fs_remove_tree(dir, id, &err));
    }
    CHECK_OK(fs_remove_tree(dir, "packs", &err));
}

/* One call after the other fails, or is the last of the process. */
static void torture(enum fault_action mode)
{
    struct err err = ERR_INIT;
    const unsigned stride = 11; /* the checkpoints are all treated alike */
    for (unsigned i = 0;; i += stride) {
        CLEANUP(store_freep) struct store *s = open_few();
        struct repacked r = {0};
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(i, mode);
            (void)!store_repack(s, &all, &r, &err);
            bool hit = fault_passed() > i;
            fault_disarm();
            _exit(hit ? 1 : 0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        (void)collect(s);
        check_few(s);
        repack(s, &r); /* goes on where that one has ended */
        (void)collect(s);
        check_few(s);
        repacked_done(&r);
        if (WEXITSTATUS(status) == 0)
            break;
        store_freep(&s);
        remove_all();
    }
}

TEST(a_repack_that_fails_anywhere_leaves_every_checkpoint_whole)
{
    torture(FAULT_FAIL);
}

TEST(a_repack_that_dies_anywhere_leaves_every_checkpoint_whole)
{
    torture(FAULT_CRASH);
}
