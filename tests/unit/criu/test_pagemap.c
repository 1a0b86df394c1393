/* Page maps: those of CRIU 4.2.1 in tests/golden/images, and such as nobody should believe. */
#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/pagemap.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_golden(void)
{
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/tests/golden/images", root);
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static int open_dir(void)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static const struct cr_pagemap *of(const struct cr_pagemaps *all, const char *name)
{
    for (size_t i = 0; i < all->n; i++)
        if (strcmp(all->list[i].name, name) == 0)
            return &all->list[i];
    test_fail(__FILE__, __LINE__, "no '%s'", name);
}

TEST(page_maps_of_criu_are_read)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_golden();
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps all = {0};
    CHECK_OK(cr_pagemaps_load(dir, &all, &err));
    CHECK_INT(all.n, 4);
    const struct cr_pagemap *p = of(&all, "pagemap-301.img"),
                            *s = of(&all, "pagemap-shmem-6912.img");
    CHECK(p->pid == 301 && s->pid == 0 && s->n_mappings == 0);
    CHECK(p->pages_id != s->pages_id && p->absent == 0 && s->absent == 0);
    for (size_t i = 0; i < all.n; i++) {
        struct stat st;
        CLEANUP(mem_freep) char *name = mem_asprintf("pages-%u.img", all.list[i].pages_id);
        CHECK(fstatat(dir, name, &st, 0) == 0);
        CHECK_INT(st.st_size, all.list[i].present * CR_PAGE);
    }
    bool stack = false;
    for (size_t i = 0; i < p->n_runs; i++) {
        const struct cr_mapping *m = cr_mapping_of(p, p->runs[i].address);
        CHECK(m && m->start <= p->runs[i].address && p->runs[i].address < m->end);
        stack = stack || (m->flags & MAP_GROWSDOWN);
    }
    CHECK(stack);
    CHECK(!cr_mapping_of(p, 0) && !cr_mapping_of(p, UINT64_MAX));
}

TEST(what_a_child_has_from_its_parent_is_marked)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_golden();
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps all = {0};
    CHECK_OK(cr_pagemaps_load(dir, &all, &err));
    const struct cr_pagemap *parent = of(&all, "pagemap-301.img");
    const struct cr_pagemap *child = of(&all, "pagemap-302.img");
    size_t shared = 0;
    for (size_t i = 0; i < child->n_mappings; i++) {
        const struct cr_mapping *m = &child->mappings[i];
        const struct cr_mapping *other = cr_mapping_of(parent, m->start);
        bool same = other && other->start == m->start && other->end == m->end;
        CHECK(!m->inherited || same);
        CHECK(!m->inherited || (other->inherited && !cr_mapping_can_wait(m)));
        shared += m->inherited;
    }
    CHECK(shared > 0);
}

TEST(only_ordinary_memory_of_its_own_can_wait)
{
    static const struct {
        struct cr_mapping m;
        bool can;
    } cases[] = {
#define RW (PROT_READ | PROT_WRITE)
#define OWN (MAP_PRIVATE | MAP_ANONYMOUS)
        {{.prot = RW, .flags = OWN}, true},
        {{.prot = RW | PROT_EXEC, .flags = OWN | MAP_NORESERVE}, true},
        {{.prot = PROT_READ, .flags = OWN}, false},
        {{.prot = PROT_WRITE, .flags = OWN}, false},
        {{.prot = RW, .flags = MAP_PRIVATE}, false},
        {{.prot = RW, .flags = MAP_SHARED | MAP_ANONYMOUS}, false},
        {{.prot = RW, .flags = OWN | MAP_LOCKED}, false},
        {{.prot = RW, .flags = OWN | MAP_HUGETLB}, false},
        {{.prot = RW, .flags = OWN | MAP_GROWSDOWN}, false},
        {{.prot = RW, .flags = OWN, .inherited = true}, false},
        {{.prot = RW, .flags = OWN, .status = 1 << 3}, false},  /* vdso */
        {{.prot = RW, .flags = OWN, .status = 1 << 12}, false}, /* vvar */
        {{.prot = RW, .flags = OWN, .status = 1 << 13}, false}, /* aio ring */
        {{.prot = RW, .flags = OWN, .status = 1 << 9}, true},   /* anonymous private */
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        if (cr_mapping_can_wait(&cases[i].m) != cases[i].can)
            test_fail(__FILE__, __LINE__, "case %zu", i);
}

/* ---- written ones ---- */

static const struct cr_run some[] = {
    {.address = 0x10000, .pages = 3, .at = 0, .flags = CR_RUN_PRESENT},
    {.address = 0x13000, .pages = 5, .at = 3, .flags = CR_RUN_PRESENT | CR_RUN_LAZY},
    {.address = 0x20000, .pages = (uint64_t)1 << 33, .at = 0, .flags = CR_RUN_LAZY},
    {.address = (uint64_t)1 << 56, .pages = 1, .at = (uint64_t)1 << 33, .flags = CR_RUN_LAZY},
};

static void save(int dir, const char *name, const struct cr_run *runs, size_t n)
{
    struct err err = ERR_INIT;
    CHECK_OK(cr_pagemap_save(dir, name, 4711, runs, n, &err));
}

TEST(what_was_saved_is_loaded)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(fd_closep) int golden = open_golden();
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps all = {0};
    CLEANUP(buf_done) struct buf tree = BUF_INIT;
    CHECK_OK(fs_read_file(golden, "pstree.img", 1 << 20, &tree, &err));
    CHECK_OK(fs_write_whole(dir, "pstree.img", tree.data, tree.len, 0600, &err));
    save(dir, "pagemap-shmem-5.img", some, ARRAY_LEN(some));
    CHECK_OK(cr_pagemaps_load(dir, &all, &err));
    CHECK_INT(all.n, 1);
    const struct cr_pagemap *p = &all.list[0];
    CHECK(p->pages_id == 4711 && p->pid == 0 && p->n_runs == ARRAY_LEN(some));
    CHECK(p->present == 8 && p->absent == ((uint64_t)1 << 33) + 1);
    for (size_t i = 0; i < p->n_runs; i++)
        CHECK(p->runs[i].address == some[i].address && p->runs[i].pages == some[i].pages &&
              p->runs[i].at == some[i].at && p->runs[i].flags == some[i].flags);
}

TEST(a_directory_without_page_maps_has_none)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps all = {.n = 7};
    static const char *const others[] = {"pagemap-01.img", "pagemap-0.img", "pagemap-1.img.tmp",
                                         "pagemap-x.img", "pagemap-shmem-.img"};
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        CHECK_OK(fs_write_whole(dir, others[i], "x", 1, 0600, &err));
    all = (struct cr_pagemaps){0};
    CHECK_OK(cr_pagemaps_load(dir, &all, &err));
    CHECK_INT(all.n, 0);
}

TEST(runs_that_cannot_be_are_refused)
{
    static const struct {
        const char *what;
        struct cr_run runs[2];
        enum rc rc;
    } cases[] = {
        {"no pages", {{0x1000, 0, 0, CR_RUN_PRESENT}, {0x3000, 1, 0, CR_RUN_PRESENT}}, RC_CORRUPT},
        {"a part of a page",
         {{0x1001, 1, 0, CR_RUN_PRESENT}, {0x3000, 1, 0, CR_RUN_PRESENT}},
         RC_CORRUPT},
        {"backwards", {{0x3000, 1, 0, CR_RUN_PRESENT}, {0x1000, 1, 0, CR_RUN_PRESENT}}, RC_CORRUPT},
        {"one over the other",
         {{0x1000, 3, 0, CR_RUN_PRESENT}, {0x3000, 1, 0, CR_RUN_PRESENT}},
         RC_CORRUPT},
        {"out of the world",
         {{0x1000, 1, 0, CR_RUN_PRESENT}, {(uint64_t)1 << 58, 1, 0, CR_RUN_PRESENT}},
         RC_CORRUPT},
        {"endless",
         {{0x1000, 1, 0, CR_RUN_LAZY}, {0x3000, UINT64_MAX, 0, CR_RUN_LAZY}},
         RC_CORRUPT},
        {"of a parent",
         {{0x1000, 1, 0, CR_RUN_PRESENT}, {0x3000, 1, 0, CR_RUN_PARENT}},
         RC_UNSUPPORTED},
        {"of nobody", {{0x1000, 1, 0, CR_RUN_PRESENT}, {0x3000, 1, 0, 8}}, RC_UNSUPPORTED},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(fd_closep) int dir = open_dir();
        struct cr_pagemaps all = {.n = 7};
        save(dir, "pagemap-shmem-5.img", cases[i].runs, 2);
        enum rc rc = cr_pagemaps_load(dir, &all, &err);
        if (rc != cases[i].rc || all.n != 7 || !strstr(err.msg, "pagemap-shmem-5.img"))
            test_fail(__FILE__, __LINE__, "%s: %s %s", cases[i].what, rc_name(rc), err.msg);
    }
}

/* Every length and every flipped bit of a true one: an error or something consistent. */
TEST(damaged_page_maps_never_contradict_themselves)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(fd_closep) int golden = open_golden();
    CLEANUP(buf_done) struct buf tree = BUF_INIT;
    CLEANUP(buf_done) struct buf map = BUF_INIT;
    CHECK_OK(fs_read_file(golden, "pstree.img", 1 << 20, &tree, &err));
    CHECK_OK(fs_write_whole(dir, "pstree.img", tree.data, tree.len, 0600, &err));
    CHECK_OK(fs_read_file(golden, "pagemap-shmem-6912.img", 1 << 20, &map, &err));
    for (size_t bit = 0; bit < 8 * map.len; bit++) {
        CLEANUP(cr_pagemaps_done) struct cr_pagemaps all = {0};
        map.data[bit / 8] = (char)(map.data[bit / 8] ^ (1 << bit % 8));
        CHECK_OK(fs_write_whole(dir, "pagemap-shmem-5.img", map.data, map.len, 0600, &err));
        map.data[bit / 8] = (char)(map.data[bit / 8] ^ (1 << bit % 8));
        if (cr_pagemaps_load(dir, &all, &err) != RC_OK)
            continue;
        uint64_t pages = 0;
        for (size_t i = 0; i < all.list[0].n_runs; i++)
            pages += all.list[0].runs[i].pages;
        CHECK_INT(pages, all.list[0].present + all.list[0].absent);
    }
    for (size_t len = 0; len < 8; len++) {
        struct cr_pagemaps all;
        CHECK_OK(fs_write_whole(dir, "pagemap-shmem-5.img", map.data, len, 0600, &err));
        CHECK_RC(cr_pagemaps_load(dir, &all, &err), RC_CORRUPT);
    }
}
