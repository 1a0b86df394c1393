#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/hidden.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct record {
    int32_t pid;
    uint32_t zero;
    uint64_t start, end;
};

static int file_of(const void *data, size_t len)
{
    int fd = memfd_create("records", MFD_CLOEXEC);
    CHECK(fd >= 0 && write(fd, data, len) == (ssize_t)len);
    return fd;
}

TEST(records_are_sorted_and_united)
{
    static const struct record records[] = {
        {9, 0, 0x9000, 0xa000}, {7, 0, 0x5000, 0x8000}, {7, 0, 0x1000, 0x3000},
        {7, 0, 0x2000, 0x4000}, {7, 0, 0x1000, 0x2000}, {7, 0, 0x4000, 0x5000},
    };
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct cr_hidden *list = NULL;
    size_t n = 0;
    CLEANUP(fd_closep) int fd = file_of(records, sizeof(records));
    CHECK_OK(cr_hidden_read(fd, &list, &n, &err));
    CHECK_INT(n, 2);
    CHECK(list[0].pid == 7 && list[0].start == 0x1000 && list[0].end == 0x8000);
    CHECK(list[1].pid == 9 && list[1].start == 0x9000 && list[1].end == 0xa000);
}

TEST(nothing_hidden_is_nothing)
{
    struct err err = ERR_INIT;
    struct cr_hidden *list = NULL;
    size_t n = 1;
    CLEANUP(fd_closep) int fd = file_of("", 0);
    CHECK_OK(cr_hidden_read(fd, &list, &n, &err));
    CHECK(list == NULL && n == 0);
}

TEST(records_that_make_no_sense_are_refused)
{
    static const struct record bad[] = {
        {0, 0, 0x1000, 0x2000}, {-3, 0, 0x1000, 0x2000}, {7, 0, 0x2000, 0x2000},
        {7, 0, 0x3000, 0x2000}, {7, 0, 0x1001, 0x2000},  {7, 0, 0x1000, 0x2fff},
    };
    struct cr_hidden *list = NULL;
    size_t n = 0;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        CLEANUP(fd_closep) int fd = file_of(&bad[i], sizeof(bad[i]));
        CHECK_RC(cr_hidden_read(fd, &list, &n, &err), RC_CORRUPT);
    }
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int cut = file_of(&bad[0], sizeof(bad[0]) - 1);
    CHECK_RC(cr_hidden_read(cut, &list, &n, &err), RC_CORRUPT);
}

TEST(what_declines_keepers_is_neither_hidden_nor_a_keeper)
{
    static const struct record record = {7, 0, 0x1000, 0x3000};
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct cr_hidden *list = NULL;
    struct cr_keeper *keepers = NULL;
    size_t n = 0;
    CLEANUP(fd_closep) int fd = file_of("", 0);
    CHECK_OK(cr_keepers_decline(fd, &err));
    CHECK(write(fd, &record, sizeof(record)) == (ssize_t)sizeof(record));
    CHECK_OK(cr_hidden_read(fd, &list, &n, &err));
    CHECK(n == 1 && list[0].pid == 7 && list[0].start == 0x1000);
    CHECK_OK(cr_keepers_read(fd, &keepers, &n, &err));
    CHECK(n == 0 && !keepers);
}

TEST(keepers_are_told_apart_from_what_was_hidden)
{
    static const struct record records[] = {
        {7, 0, 0x1000, 0x3000}, {9, 0, 0x9000, 0xa000}, {7, 70, 0, 0}, {9, 90, 0, 0}};
    static const struct record bad = {7, 70, 0x1000, 0x2000};
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct cr_hidden *list = NULL;
    CLEANUP(mem_freep) struct cr_keeper *keepers = NULL;
    size_t n = 0;
    CLEANUP(fd_closep) int fd = file_of(records, sizeof(records));
    CHECK_OK(cr_hidden_read(fd, &list, &n, &err));
    CHECK_INT(n, 2);
    CHECK_OK(cr_keepers_read(fd, &keepers, &n, &err));
    CHECK_INT(n, 2);
    CHECK(keepers[0].pid == 7 && keepers[0].keeper == 70);
    CHECK(keepers[1].pid == 9 && keepers[1].keeper == 90);
    CLEANUP(fd_closep) int none = file_of(records, 2 * sizeof(records[0]));
    struct cr_keeper *nobody = NULL;
    CHECK_OK(cr_keepers_read(none, &nobody, &n, &err));
    CHECK(n == 0 && !nobody);
    CLEANUP(fd_closep) int wrong = file_of(&bad, sizeof(bad));
    CHECK_RC(cr_keepers_read(wrong, &nobody, &n, &err), RC_CORRUPT);
}

static struct cr_pagemap page_map(void)
{
    struct cr_run *runs = mem_zalloc(2 * sizeof(*runs));
    runs[0] = (struct cr_run){0x2000, 2, 0, CR_RUN_PRESENT};
    runs[1] = (struct cr_run){0x9000, 1, 2, CR_RUN_PRESENT | CR_RUN_LAZY};
    return (struct cr_pagemap){.name = "pagemap-7.img", .runs = runs, .n_runs = 2, .present = 3};
}

TEST(runs_are_merged_as_lazy_and_absent)
{
    static const struct cr_run more[] = {{.address = 0x1000, .pages = 1},
                                         {.address = 0x4000, .pages = 5},
                                         {.address = 0xa000, .pages = 7}};
    static const struct cr_run want[] = {{0x1000, 1, 0, CR_RUN_LAZY},
                                         {0x2000, 2, 0, CR_RUN_PRESENT},
                                         {0x4000, 5, 1, CR_RUN_LAZY},
                                         {0x9000, 1, 2, CR_RUN_PRESENT | CR_RUN_LAZY},
                                         {0xa000, 7, 6, CR_RUN_LAZY}};
    struct err err = ERR_INIT;
    struct cr_pagemap p = page_map();
    CHECK_OK(cr_pagemap_add(&p, more, ARRAY_LEN(more), &err));
    CHECK_INT(p.n_runs, ARRAY_LEN(want));
    CHECK_INT(p.present, 3);
    CHECK_INT(p.absent, 13);
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        CHECK(p.runs[i].address == want[i].address && p.runs[i].pages == want[i].pages &&
              p.runs[i].at == want[i].at && p.runs[i].flags == want[i].flags);
    free(p.runs);
}

TEST(a_page_that_comes_twice_is_refused)
{
    static const struct cr_run more[] = {{.address = 0x1000, .pages = 2}};
    struct err err = ERR_INIT;
    struct cr_pagemap p = page_map();
    CHECK_RC(cr_pagemap_add(&p, more, 1, &err), RC_CORRUPT);
    CHECK_INT(p.n_runs, 2); /* as before */
    free(p.runs);
}

TEST(a_criu_without_the_shim_cannot_hide)
{
    struct err err = ERR_INIT;
    char path[512];
    CHECK(!cr_can_hide("criu"));
    (void)snprintf(path, sizeof(path), "%s/sbin", test_dir());
    CHECK(mkdir(path, 0700) == 0);
    (void)snprintf(path, sizeof(path), "%s/sbin/criu", test_dir());
    CHECK(!cr_can_hide(path));
    char lib[512];
    (void)snprintf(lib, sizeof(lib), "%s/lib", test_dir());
    CHECK(mkdir(lib, 0700) == 0);
    (void)snprintf(lib, sizeof(lib), "%s/lib/pages.so", test_dir());
    CHECK_OK(fs_write_whole(AT_FDCWD, lib, "x", 1, 0600, NULL));
    CHECK(cr_can_hide(path));
}
