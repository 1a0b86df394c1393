/* Two checkpoints of one shared memory, and what is told of their pages. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "cli/memory_diff.h"
#include "criu/pagemap.h"
#include "harness/test.h"
#include "store/page_writer.h"

#include <fcntl.h>
#include <stdlib.h>

static void copy_tree_image(int dir)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf tree = BUF_INIT;
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/tests/golden/images/pstree.img", root);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 20, &tree, &err));
    CHECK_OK(fs_write_whole(dir, "pstree.img", tree.data, tree.len, 0600, &err));
}

/* A page of one letter; '0' is a page of zeros. */
static void letter_page(char letter, char out[CR_PAGE])
{
    memset(out, letter == '0' ? 0 : letter, CR_PAGE);
}

static void pack(struct store *s, int dir, const char *letters)
{
    struct err err = ERR_INIT;
    size_t n = strlen(letters);
    struct page_writer_totals t;
    struct page_input *in = NULL;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(page_writer_freep) struct page_writer *w = NULL;
    struct page_writer_options o = {
        .backend = store_backend(s), .codec = COMPRESS_LZ4, .threads = 1};
    CHECK_OK(page_writer_open(&o, &w, &err));
    CHECK_OK(page_writer_input(w, 3, n, &in, &err));
    struct page_block *b = page_writer_take(w, &err);
    CHECK(b);
    for (size_t i = 0; i < n; i++)
        letter_page(letters[i], (char *)page_block_data(b) + i * CR_PAGE);
    page_writer_give(w, b, in, 0, (unsigned)n);
    CHECK_OK(page_writer_finish(w, &m, &t, &err));
    memory_format(&m, &text);
    CHECK_OK(fs_write_whole(dir, MEMORY_NAME, text.data, text.len, 0600, &err));
}

static void write_pages(int dir, const char *letters)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf pages = BUF_INIT;
    for (; *letters; letters++) {
        char page[CR_PAGE];
        letter_page(*letters, page);
        buf_add(&pages, page, sizeof(page));
    }
    CHECK_OK(fs_write_whole(dir, "pages-3.img", pages.data, pages.len, 0600, &err));
}

/* letters  the pages from address 0 on; a blank is a page that is not there */
static void make(struct store *s, const char *id, const char *letters, bool packed)
{
    struct err err = ERR_INIT;
    struct cr_run runs[64];
    char there[65] = "";
    size_t n = 0;
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata m = {.ours = true, .packed = packed};
    CHECK_OK(store_begin(s, id, false, &g, &err));
    int dir = store_staging_fd(g);
    copy_tree_image(dir);
    for (size_t i = 0; letters[i]; i++)
        if (letters[i] != ' ') {
            there[n] = letters[i];
            runs[n++] =
                (struct cr_run){.address = i * CR_PAGE, .pages = 1, .flags = CR_RUN_PRESENT};
        }
    CHECK_OK(cr_pagemap_save(dir, "pagemap-shmem-9.img", 3, runs, n, &err));
    packed ? pack(s, dir, there) : write_pages(dir, there);
    CHECK_OK(store_commit(g, &m, true, &err));
}

static struct store *open_store(void)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CHECK_OK(store_open(test_dir(), &s, &err));
    return s;
}

TEST(pages_are_compared_by_address_in_either_format)
{
    CLEANUP(store_freep) struct store *s = open_store();
    for (int format = 0; format < 4; format++) {
        struct err err = ERR_INIT;
        CLEANUP(store_entry_freep) struct store_entry *a = NULL;
        CLEANUP(store_entry_freep) struct store_entry *b = NULL;
        CLEANUP(mem_freep) struct memory_diff_row *rows = NULL;
        size_t n = 0;
        make(s, "a", "abcd0e0 xy", format & 1);
        make(s, "b", "abXd00ez  ", format & 2);
        CHECK_OK(store_find(s, "a", &a, &err));
        CHECK_OK(store_find(s, "b", &b, &err));
        CHECK_OK(memory_diff(s, a, b, &rows, &n, &err));
        CHECK_INT(n, 1);
        CHECK(rows[0].pid == 0 && rows[0].kind == CR_MEMORY_SHARED);
        CHECK_INT(rows[0].same, 4);    /* a b d 0 */
        CHECK_INT(rows[0].changed, 3); /* c to X, e to zero, zero to e */
        CHECK_INT(rows[0].added, 1);
        CHECK_INT(rows[0].removed, 2);
    }
}

TEST(memory_that_only_one_has_came_or_went)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *a = NULL;
    CLEANUP(store_entry_freep) struct store_entry *b = NULL;
    CLEANUP(mem_freep) struct memory_diff_row *rows = NULL;
    CLEANUP(mem_freep) struct memory_diff_row *back = NULL;
    size_t n = 0;
    make(s, "a", "abc", true);
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata m = {.ours = true};
    CHECK_OK(store_begin(s, "b", false, &g, &err));
    CHECK_OK(store_commit(g, &m, true, &err));
    CHECK_OK(store_find(s, "a", &a, &err));
    CHECK_OK(store_find(s, "b", &b, &err));
    CHECK_OK(memory_diff(s, a, b, &rows, &n, &err));
    CHECK(n == 1 && rows[0].removed == 3 && !rows[0].same && !rows[0].changed && !rows[0].added);
    CHECK_OK(memory_diff(s, b, a, &back, &n, &err));
    CHECK(n == 1 && back[0].added == 3 && !back[0].removed);
}
