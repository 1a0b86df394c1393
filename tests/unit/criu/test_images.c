/* The reader of CRIU's images, over tests/golden/images: two processes (one with two threads) with
 * pipes, sockets, memfd, eventfd, epoll, timerfd, made by CRIU 4.2.1. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/images.h"
#include "harness/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_golden(void)
{
    char path[512];
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    (void)snprintf(path, sizeof(path), "%s/tests/golden/images", root);
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static struct cr_images *load_golden(void)
{
    struct err err = ERR_INIT;
    struct cr_images *images = NULL;
    CLEANUP(fd_closep) int dir = open_golden();
    CHECK_OK(cr_images_load(dir, NULL, &images, &err));
    return images;
}

static const struct cr_file *file_of(const struct cr_process *p, uint32_t fd)
{
    for (size_t i = 0; i < p->n_descriptors; i++)
        if (p->descriptors[i].fd == fd)
            return p->descriptors[i].file;
    return NULL;
}

static void check_file(const struct cr_process *p, uint32_t fd, const char *kind, const char *text)
{
    const struct cr_file *f = file_of(p, fd);
    CHECK(f != NULL);
    CHECK_STR(f->kind, kind);
    if (text)
        CHECK_STR(f->text, text);
}

TEST(the_tree_has_its_processes_with_identity_and_rights)
{
    CLEANUP(cr_images_freep) struct cr_images *images = load_golden();
    CHECK_INT(images->n, 2);
    const struct cr_process *a = &images->processes[0], *b = &images->processes[1];
    CHECK(a->pid == 301 && a->threads == 2 && a->sid == 301);
    CHECK(b->pid == 302 && b->ppid == 301 && b->threads == 1 && b->sid == 302);
    CHECK(a->uid == 0 && b->uid == 65534 && b->gid == 65534);
    CHECK(a->capabilities != 0 && b->capabilities == 0);
    CHECK_INT(a->seccomp, 0);
    CHECK_STR(a->comm, "app");
    CHECK_STR(a->exe, "/opt/golden/app");
    CHECK_STR(a->cwd, "/");
    CHECK_STR(a->root, "/");
}

static void check_list(char *const *list, const char *const *want)
{
    for (; *want; list++, want++)
        CHECK_STR(*list, *want);
    CHECK(*list == NULL);
}

TEST(arguments_and_environment_come_from_the_pages)
{
    CLEANUP(cr_images_freep) struct cr_images *images = load_golden();
    static const char *const arguments[] = {"/opt/golden/app", "first argument", "second", NULL};
    static const char *const environment[] = {
        "PATH=/usr/bin:/bin",       "LANG=C", "USER=golden", "EMPTY=", "LINES=a\nb",
        "CHREK_DIR=/run/chrek/app", NULL};
    for (size_t i = 0; i < 2; i++) {
        check_list(images->processes[i].arguments, arguments);
        check_list(images->processes[i].environment, environment);
    }
}

TEST(descriptors_are_described_by_kind)
{
    CLEANUP(cr_images_freep) struct cr_images *images = load_golden();
    const struct cr_process *p = &images->processes[0];
    check_file(p, 3, "pipe", NULL);
    check_file(p, 7, "tcp", "127.0.0.1:18642 listening");
    check_file(p, 8, "udp", "[::]:18643");
    check_file(p, 10, "eventfd", "count 7");
    check_file(p, 11, "epoll", "");
    check_file(p, 12, "timerfd", "");
    check_file(p, 13, "memfd", "golden");
    check_file(p, 14, "file", "/etc/hostname");
    CHECK(strstr(file_of(p, 9)->text, "@golden listening"));
    CHECK(strstr(file_of(p, 5)->text, "stream ") && strstr(file_of(p, 5)->text, " to "));
    CHECK(file_of(p, 99) == NULL);
    CHECK(file_of(p, 7) == file_of(&images->processes[1], 7));
}

TEST(memory_is_counted_by_kind)
{
    CLEANUP(cr_images_freep) struct cr_images *images = load_golden();
    const struct cr_memory_use *m = &images->processes[0].memory;
    uint64_t saved = 0;
    for (int k = 0; k < CR_MEMORY_COUNT_; k++)
        saved += m->saved[k];
    CHECK_INT(saved, 65536); /* its pages image */
    CHECK(m->saved[CR_MEMORY_STACK] && m->saved[CR_MEMORY_HEAP]);
    CHECK_INT(m->mapped[CR_MEMORY_MEMFD], 8192);
    CHECK_INT(m->mapped[CR_MEMORY_SHARED], 16384);
    CHECK_INT(m->saved[CR_MEMORY_MEMFD], 0);
    CHECK_INT(images->shared_saved, 12288);
}

/* ---- damage ---- */

static void copy_golden(int to)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int from = open_golden();
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", from);
    DIR *dir = opendir(path);
    CHECK(dir != NULL);
    for (struct dirent *e; (e = readdir(dir));) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        if (e->d_name[0] == '.')
            continue;
        CHECK_OK(fs_read_file(from, e->d_name, 1 << 20, &text, &err));
        CHECK_OK(fs_write_whole(to, e->d_name, text.data, text.len, 0644, &err));
    }
    CHECK(closedir(dir) == 0);
}

TEST(an_image_cut_anywhere_is_refused_or_read_up_to_there)
{
    static const char *const names[] = {"pstree.img", "core-301.img", "mm-301.img",
                                        "files.img",  "fdinfo-2.img", "pagemap-301.img",
                                        "pages-3.img"};
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(dir >= 0);
    copy_golden(dir);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct err err = ERR_INIT;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        CHECK_OK(fs_read_file(dir, names[i], 1 << 20, &text, &err));
        for (size_t len = 0; len < text.len; len += 1 + text.len / 200) {
            CLEANUP(cr_images_freep) struct cr_images *images = NULL;
            CHECK_OK(fs_write_whole(dir, names[i], text.data, len, 0644, &err));
            enum rc rc = cr_images_load(dir, NULL, &images, &err);
            CHECK(rc == RC_OK || rc == RC_CORRUPT);
            CHECK((rc == RC_OK) == (images != NULL));
        }
        CHECK_OK(fs_write_whole(dir, names[i], text.data, text.len, 0644, &err));
    }
}

TEST(a_directory_without_images_has_none)
{
    struct err err = ERR_INIT;
    struct cr_images *images = NULL;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK_RC(cr_images_load(dir, NULL, &images, &err), RC_NOT_FOUND);
    CHECK(images == NULL);
}

TEST(a_failing_system_call_leaks_nothing)
{
    CLEANUP(fd_closep) int dir = open_golden();
    for (unsigned i = 0;; i++) {
        struct err err = ERR_INIT;
        CLEANUP(cr_images_freep) struct cr_images *images = NULL;
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = cr_images_load(dir, NULL, &images, &err);
        bool ended = fault_passed() <= i;
        fault_disarm();
        CHECK_INT(test_open_fds(), fds);
        CHECK((rc == RC_OK) == (images != NULL));
        if (ended)
            break;
        CHECK(i < 1000);
    }
}

TEST(kinds_of_memory_have_names)
{
    CHECK_STR(cr_memory_name(CR_MEMORY_HEAP), "heap");
    CHECK_STR(cr_memory_name(CR_MEMORY_OTHER), "other");
    CHECK_STR(cr_memory_name((enum cr_memory)99), "other");
}
