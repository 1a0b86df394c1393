/* A plain checkpoint whose memory we write ourselves: images made here, a process of ours for them.
 */
#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/pagemap.h"
#include "engine/plain.h"
#include "engine/plain_fill.h"
#include "harness/test.h"
#include "store/store.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE CR_PAGE
#define OURS ((uint64_t)2500)  /* pages that can wait: not a whole number of segments */
#define THEIRS ((uint64_t)40)  /* that cannot */
#define SPARSE ((uint64_t)100) /* every second of these is there, and can wait */
#define TOTAL (OURS + THEIRS + SPARSE / 2)

struct world {
    pid_t pid;
    char *ours, *theirs, *sparse;
    int dir;
    char *bytes; /* of the page image */
    struct store_entry *entry;
};

/* ---- images ---- */

static void put(struct buf *b, unsigned field, uint64_t value)
{
    uint8_t raw[12];
    size_t n = 0;
    raw[n++] = (uint8_t)(field << 3);
    for (; value > 127; value >>= 7)
        raw[n++] = (uint8_t)(value | 128);
    raw[n++] = (uint8_t)value;
    buf_add(b, raw, n);
}

static void put_message(struct buf *out, const struct buf *message)
{
    uint32_t n = (uint32_t)message->len;
    buf_add(out, &n, sizeof(n));
    buf_add(out, message->data, message->len);
}

static void put_mapping(struct buf *mm, const char *at, uint64_t bytes, unsigned flags)
{
    CLEANUP(buf_done) struct buf m = BUF_INIT;
    put(&m, 1, (uint64_t)(uintptr_t)at);
    put(&m, 2, (uint64_t)(uintptr_t)at + bytes);
    put(&m, 5, PROT_READ | PROT_WRITE);
    put(&m, 6, flags);
    uint8_t head[12] = {14 << 3 | 2, (uint8_t)m.len};
    CHECK(m.len < 128);
    buf_add(mm, head, 2);
    buf_add(mm, m.data, m.len);
}

static void save(const struct world *w, const char *name, const void *data, size_t len)
{
    struct err err = ERR_INIT;
    CHECK_OK(fs_write_whole(w->dir, name, data, len, 0600, &err));
}

static void save_message(const struct world *w, const char *name, const struct buf *message)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    buf_add(&out, "\0\0\0\0\0\0\0\0", 8);
    put_message(&out, message);
    save(w, name, out.data, out.len);
}

/* Mappings have to come by ascending address.  short_of: bytes that the first one is shorter. */
static void save_mappings(const struct world *w, uint64_t short_of)
{
    CLEANUP(buf_done) struct buf mm = BUF_INIT;
    CLEANUP(mem_freep) char *name = mem_asprintf("mm-%d.img", (int)w->pid);
    put_mapping(&mm, w->ours, OURS * PAGE - short_of, MAP_PRIVATE | MAP_ANONYMOUS);
    put_mapping(&mm, w->theirs, THEIRS * PAGE, MAP_PRIVATE);
    put_mapping(&mm, w->sparse, SPARSE * PAGE, MAP_PRIVATE | MAP_ANONYMOUS);
    save_message(w, name, &mm);
}

static void save_pages(const struct world *w, const char *pages)
{
    struct err err = ERR_INIT;
    struct cr_run runs[2 + SPARSE / 2];
    const uint32_t lazy = CR_RUN_LAZY | CR_RUN_PRESENT;
    CLEANUP(mem_freep) char *name = mem_asprintf("pagemap-%d.img", (int)w->pid);
    size_t n = 0;
    runs[n++] = (struct cr_run){(uint64_t)(uintptr_t)w->ours, OURS, 0, lazy};
    runs[n++] = (struct cr_run){(uint64_t)(uintptr_t)w->theirs, THEIRS, 0, lazy};
    for (uint64_t i = 0; i < SPARSE; i += 2)
        runs[n++] = (struct cr_run){(uint64_t)(uintptr_t)w->sparse + i * PAGE, 1, 0, lazy};
    CHECK_OK(cr_pagemap_save(w->dir, name, 1, runs, n, &err));
    save(w, "pages-1.img", pages, TOTAL * PAGE);
}

static void save_rest(const struct world *w)
{
    CLEANUP(buf_done) struct buf tree = BUF_INIT;
    static const char about[] =
        "{\"checkpoint_id\": \"x\", \"created_at\": \"2026-01-31T12:00:00Z\"}";
    put(&tree, 1, (uint64_t)w->pid);
    save_message(w, "pstree.img", &tree);
    save(w, "metadata.json", about, sizeof(about) - 1);
    save(w, "core-1.img", "core", 4);
}

/* ---- the process ---- */

static void start(struct world *w)
{
    size_t room = (OURS + THEIRS + SPARSE + 2) * PAGE;
    char *at = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(at != MAP_FAILED);
    w->ours = at;
    w->theirs = w->ours + (OURS + 1) * PAGE;
    w->sparse = w->theirs + (THEIRS + 1) * PAGE;
    w->pid = fork();
    if (w->pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;)
            (void)pause();
    }
    CHECK(w->pid > 0);
    w->bytes = mem_alloc(TOTAL * PAGE);
    for (size_t i = 0; i < TOTAL * PAGE; i++)
        w->bytes[i] = (char)(i * 7 + i / PAGE * 13 + 1);
}

static void make(struct world *w)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/x", test_dir());
    *w = (struct world){.dir = -1};
    CHECK(mkdir(path, 0700) == 0);
    w->dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    start(w);
    save_mappings(w, 0);
    save_pages(w, w->bytes);
    save_rest(w);
    int fd = sys_openat(w->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(store_adopt_unmarked(fd, path, NULL, &w->entry, &err));
}

static void drop(struct world *w)
{
    (void)kill(w->pid, SIGKILL);
    (void)waitpid(w->pid, NULL, 0);
    store_entry_freep(&w->entry);
    fd_closep(&w->dir);
    free(w->bytes);
}

/* Whether the process has `pages` of the image's bytes at an address, or zeros. */
static bool has(const struct world *w, const char *at, uint64_t first, uint64_t pages, bool zero)
{
    CLEANUP(mem_freep) char *got = mem_alloc(pages * PAGE);
    CLEANUP(mem_freep) char *none = mem_zalloc(pages * PAGE);
    struct iovec to = {got, pages * PAGE}, from = {(void *)(uintptr_t)at, pages * PAGE};
    CHECK(process_vm_readv(w->pid, &to, 1, &from, 1, 0) == (ssize_t)(pages * PAGE));
    return memcmp(got, zero ? none : w->bytes + first * PAGE, pages * PAGE) == 0;
}

static bool all_there(const struct world *w)
{
    bool there = has(w, w->ours, 0, OURS, false) && has(w, w->theirs, 0, THEIRS, true);
    for (uint64_t i = 0; i < SPARSE; i++)
        there = there && has(w, w->sparse + i * PAGE, OURS + THEIRS + i / 2, 1, i % 2 == 1);
    return there;
}

/* The digest that a manifest would have. */
static void know(struct plain *p, const struct world *w)
{
    digest_file_bytes(w->bytes, TOTAL * PAGE, &p->images[0].digest);
    p->images[0].has_digest = true;
}

/* ---- tests ---- */

TEST(what_can_wait_is_ours_and_the_rest_is_copied_for_criu)
{
    struct err err = ERR_INIT;
    struct world w;
    make(&w);
    CLEANUP(plain_done) struct plain p = PLAIN_INIT;
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps maps = {0};
    CHECK_OK(plain_make(w.entry, &p, &err));
    CHECK_INT(p.gap_bytes, (OURS + SPARSE / 2) * PAGE);
    CHECK_INT(p.eager_bytes, THEIRS * PAGE);
    CLEANUP(buf_done) struct buf pages = BUF_INIT;
    CLEANUP(buf_done) struct buf core = BUF_INIT;
    CHECK_OK(fs_read_file(p.dir, "pages-1.img", TOTAL * PAGE, &pages, &err));
    CHECK_INT(pages.len, THEIRS * PAGE);
    CHECK(memcmp(pages.data, w.bytes + OURS * PAGE, pages.len) == 0);
    CHECK_OK(fs_read_file(p.dir, "core-1.img", 100, &core, &err));
    CHECK_STR(buf_str(&core), "core");
    CHECK_OK(cr_pagemaps_load(p.dir, &maps, &err));
    CHECK(maps.n == 1 && maps.list[0].n_runs == 1 && maps.list[0].present == THEIRS);
    CHECK_INT(maps.list[0].runs[0].address, (uint64_t)(uintptr_t)w.theirs);
    drop(&w);
}

TEST(every_page_that_is_ours_is_written)
{
    struct err err = ERR_INIT;
    struct world w;
    uint64_t done = 0;
    make(&w);
    CLEANUP(plain_done) struct plain p = PLAIN_INIT;
    CHECK_OK(plain_make(w.entry, &p, &err));
    CHECK_OK(plain_fill(&p, getpid(), &done, &err)); /* without a digest */
    CHECK(all_there(&w));
    know(&p, &w);
    CHECK_OK(plain_fill(&p, getpid(), NULL, &err));
    CHECK(all_there(&w));
    CHECK_INT(done, p.gap_bytes);
    drop(&w);
}

TEST(any_changed_byte_is_found_also_in_what_criu_has_got)
{
    const uint64_t places[] = {0, OURS * PAGE - 1, (OURS + 3) * PAGE, TOTAL * PAGE - 1};
    struct err err = ERR_INIT;
    struct world w;
    make(&w);
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        CLEANUP(plain_done) struct plain p = PLAIN_INIT;
        char *byte = &w.bytes[places[i]];
        *byte ^= 16;
        save_pages(&w, w.bytes);
        *byte ^= 16;
        CHECK_OK(plain_make(w.entry, &p, &err));
        know(&p, &w);
        CHECK_RC(plain_fill(&p, getpid(), NULL, &err), RC_CORRUPT);
        CHECK(strstr(err.msg, "'pages-1.img' is damaged"));
        err = (struct err)ERR_INIT;
    }
    drop(&w);
}

/* CRIU has the copy that was hashed, not what came to the checkpoint later. */
TEST(what_is_changed_after_the_copy_was_made_changes_nothing)
{
    struct err err = ERR_INIT;
    struct world w;
    make(&w);
    CLEANUP(plain_done) struct plain p = PLAIN_INIT;
    CHECK_OK(plain_make(w.entry, &p, &err));
    know(&p, &w);
    CHECK(pwrite(p.images[0].from, "x", 1, 0) < 0); /* it is open for reading only */
    int fd = sys_openat(w.dir, "pages-1.img", O_WRONLY, 0);
    CHECK(pwrite(fd, "x", 1, (off_t)(OURS * PAGE)) == 1);
    CHECK_OK(plain_fill(&p, getpid(), NULL, &err));
    CHECK(ftruncate(fd, (off_t)PAGE) == 0);
    CHECK_RC(plain_fill(&p, getpid(), NULL, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "has become shorter"));
    fd_closep(&fd);
    drop(&w);
}

TEST(a_process_that_is_not_there_is_told)
{
    struct err err = ERR_INIT;
    struct world w;
    make(&w);
    CLEANUP(plain_done) struct plain p = PLAIN_INIT;
    CHECK_OK(plain_make(w.entry, &p, &err));
    p.images[0].pid = INT32_MAX;
    CHECK_RC(plain_fill(&p, getpid(), NULL, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "bring in memory: process 2147483647 was not restored");
    drop(&w);
}

TEST(what_is_better_left_to_criu_is_left)
{
    struct err err = ERR_INIT;
    struct world w;
    make(&w);
    struct plain p = {.n_images = 77};
    save(&w, "pages-1.img", w.bytes, (TOTAL - 1) * PAGE);
    CHECK_RC(plain_make(w.entry, &p, &err), RC_UNSUPPORTED);
    save_pages(&w, w.bytes);
    CHECK(unlinkat(w.dir, "pages-1.img", 0) == 0);
    CHECK_RC(plain_make(w.entry, &p, &err), RC_NOT_FOUND);
    CHECK(mkfifoat(w.dir, "pages-1.img", 0600) == 0);
    CHECK_RC(plain_make(w.entry, &p, &err), RC_UNSUPPORTED);
    CHECK(unlinkat(w.dir, "pages-1.img", 0) == 0);
    save_pages(&w, w.bytes);
    int fd = sys_openat(w.dir, "big.img", O_WRONLY | O_CREAT, 0600);
    CHECK(ftruncate(fd, (off_t)1 << 30) == 0);
    CHECK_RC(plain_make(w.entry, &p, &err), RC_UNSUPPORTED);
    CHECK(unlinkat(w.dir, "big.img", 0) == 0);
    save_mappings(&w, 1);
    CHECK_RC(plain_make(w.entry, &p, &err), RC_CORRUPT);
    CHECK(p.n_images == 77);
    save_mappings(&w, 0);
    CHECK_OK(plain_make(w.entry, &p, &err));
    plain_done(&p);
    fd_closep(&fd);
    drop(&w);
}
