#include "backend/cache.h"
#include "backend/cache_disk.h"
#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "unit/backend/conformance.h"
#include "unit/backend/counting.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define PACK "packs/ab/0123456789abcdef"
#define SIZE (((size_t)5 << 20) + 12345)

static char *pattern(size_t len, unsigned seed)
{
    char *p = mem_alloc(len);
    for (size_t i = 0; i < len; i++)
        p[i] = (char)(i * 167 + (i >> 9) + (i >> 20) + seed);
    return p;
}

static char *cache_dir(void)
{
    return mem_asprintf("%s/cache", test_dir());
}

static struct backend *cached(struct backend *below, uint64_t bytes)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CLEANUP(mem_freep) char *dir = cache_dir();
    const struct cache_options o = {.dir = dir, .bytes = bytes, .storage = "s3://x"};
    CHECK_OK(backend_cache_open(below, &o, &b, &err));
    return b;
}

/* Memory that is counted, behind a cache. */
static struct backend *counted(uint64_t bytes, struct counting **out)
{
    struct err err = ERR_INIT;
    struct backend *mem = NULL;
    CHECK_OK(backend_mem_open(&mem, &err));
    return cached(counting_new(mem, out), bytes);
}

static bool reads(struct backend *b, const char *key, uint64_t at, const char *want, size_t len)
{
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(mem_freep) char *got = mem_alloc(len);
    return backend_open(b, key, &o, NULL) == RC_OK &&
           backend_read(o, at, got, len, NULL) == RC_OK && memcmp(got, want, len) == 0;
}

static enum rc open_mine(void *arg, struct backend **out, struct err *err)
{
    static struct counting *counts;
    (void)arg, (void)err;
    *out = counted(CACHE_MIN, &counts);
    return RC_OK;
}

TEST(conforms)
{
    conformance(&(struct conformance){.open = open_mine});
}

TEST(what_was_read_is_not_read_again)
{
    struct err err = ERR_INIT;
    struct counting *n = NULL;
    CLEANUP(backend_freep) struct backend *b = counted((uint64_t)64 << 20, &n);
    CLEANUP(mem_freep) char *data = pattern(SIZE, 0);
    CHECK_OK(backend_put(b, PACK, data, SIZE, &err));
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_INT(n->bytes, SIZE);
    CHECK_INT(n->stats, 1);
    for (size_t at = 0; at + 70000 < SIZE; at += 300007)
        CHECK(reads(b, PACK, at, data + at, 70000));
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK(reads(b, PACK, SIZE - 1, data + SIZE - 1, 1));
    CHECK_INT(n->bytes, SIZE);
    CHECK_INT(n->stats, 1); /* nobody was even asked */
}

TEST(a_checkpoint_that_was_replaced_is_read_anew)
{
    struct err err = ERR_INIT;
    struct counting *n = NULL;
    CLEANUP(backend_freep) struct backend *b = counted((uint64_t)64 << 20, &n);
    CLEANUP(mem_freep) char *one = pattern(SIZE, 0);
    CLEANUP(mem_freep) char *two = pattern(SIZE, 7);
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    CHECK_OK(backend_put(b, "c.tar", one, SIZE, &err));
    CHECK(reads(b, "c.tar", 0, one, SIZE));
    CHECK(reads(b, "c.tar", 0, one, SIZE));
    CHECK_INT(n->bytes, SIZE);
    CHECK_OK(backend_begin(b, "c.tar", &u, &err));
    backend_replaces(u);
    CHECK_OK(backend_append(u, two, SIZE, &err));
    CHECK_OK(backend_commit(u, &err));
    CHECK(reads(b, "c.tar", 0, two, SIZE));
    CHECK_INT(n->bytes, 2 * SIZE);
    CHECK_OK(backend_put(b, "holds/x", "1", 1, &err));
    CHECK(reads(b, "holds/x", 0, "1", 1) && reads(b, "holds/x", 0, "1", 1));
    CHECK_INT(n->bytes, 2 * SIZE + 2); /* of nobody's interest tomorrow */
}

/* Call for every file of blocks. */
static unsigned each_block(void (*visit)(int dir, const char *name))
{
    CLEANUP(mem_freep) char *path = cache_dir();
    unsigned n = 0;
    for (unsigned i = 0; i < 256; i++) {
        CLEANUP(mem_freep) char *folder = mem_asprintf("%s/%02x", path, i);
        DIR *dir = opendir(folder);
        for (const struct dirent *e; dir && (e = readdir(dir));)
            if (e->d_name[0] != '.') {
                n++;
                if (visit)
                    visit(dirfd(dir), e->d_name);
            }
        if (dir)
            (void)closedir(dir);
    }
    return n;
}

static void spoil(int dir, const char *name)
{
    CLEANUP(fd_closep) int fd = sys_openat(dir, name, O_RDWR, 0);
    char byte = 0;
    CHECK(fd >= 0 && pread(fd, &byte, 1, 200) == 1);
    byte ^= 1;
    CHECK(pwrite(fd, &byte, 1, 200) == 1);
}

static void cut(int dir, const char *name)
{
    CLEANUP(fd_closep) int fd = sys_openat(dir, name, O_RDWR, 0);
    CHECK(fd >= 0 && ftruncate(fd, 100) == 0);
}

TEST(a_damaged_cache_costs_only_time)
{
    struct err err = ERR_INIT;
    struct counting *n = NULL;
    CLEANUP(backend_freep) struct backend *b = counted((uint64_t)64 << 20, &n);
    CLEANUP(mem_freep) char *data = pattern(SIZE, 0);
    CHECK_OK(backend_put(b, PACK, data, SIZE, &err));
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_INT(each_block(spoil), 7); /* six blocks, and the size */
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_INT(n->bytes, 2 * SIZE);
    CHECK_INT(each_block(cut), 7);
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_INT(n->bytes, 3 * SIZE);
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_INT(n->bytes, 3 * SIZE);
}

TEST(a_pack_that_was_seen_is_there_without_asking)
{
    struct err err = ERR_INIT;
    struct counting *n = NULL;
    struct backend_info info = {0};
    CLEANUP(backend_freep) struct backend *b = counted((uint64_t)64 << 20, &n);
    CHECK_RC(backend_stat(b, PACK, &info, &err), RC_NOT_FOUND);
    CHECK_OK(backend_put(b, PACK, "pack", 4, &err));
    CHECK(reads(b, PACK, 0, "pack", 4));
    uint64_t asked = n->stats;
    CHECK_OK(backend_stat(b, PACK, &info, &err));
    CHECK_INT(info.size, 4);
    CHECK_INT(n->stats, asked);
}

TEST(what_a_reader_calls_damaged_is_forgotten)
{
    struct err err = ERR_INIT;
    struct counting *n = NULL;
    CLEANUP(backend_freep) struct backend *b = counted((uint64_t)64 << 20, &n);
    CLEANUP(mem_freep) char *data = pattern(SIZE, 0);
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(backend_put(b, PACK, data, SIZE, &err));
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_OK(backend_open(b, PACK, &o, &err));
    CHECK(backend_forget(o, CACHE_BLOCK - 5, 10));
    CHECK(!backend_forget(o, CACHE_BLOCK - 5, 10));
    CHECK(reads(b, PACK, 0, data, SIZE));
    CHECK_INT(n->bytes, SIZE + 2 * CACHE_BLOCK);
}

TEST(a_cache_keeps_to_its_size_and_what_was_used_last)
{
    struct err err = ERR_INIT;
    struct counting *n = NULL;
    CLEANUP(backend_freep) struct backend *b = counted(CACHE_MIN, &n);
    CLEANUP(mem_freep) char *data = pattern(SIZE, 0);
    CLEANUP(mem_freep) char *dir = cache_dir();
    CLEANUP(cache_disk_freep) struct cache_disk *disk = NULL;
    char key[40];
    CHECK_OK(cache_disk_open(dir, CACHE_MIN, &disk, &err));
    for (int i = 0; i < 8; i++) {
        (void)snprintf(key, sizeof(key), "packs/ab/%d", i);
        CHECK_OK(backend_put(b, key, data, SIZE, &err));
        CHECK(reads(b, key, 0, data, SIZE));
        CHECK(cache_disk_usage(disk) <= CACHE_MIN);
    }
    uint64_t before = n->bytes;
    CHECK(reads(b, key, 0, data, SIZE)); /* the last one is there */
    CHECK_INT(n->bytes, before);
    CHECK(reads(b, "packs/ab/0", 0, data, SIZE)); /* the first one is not */
    CHECK(n->bytes > before);
}

TEST(many_processes_read_the_storage_once)
{
    struct err err = ERR_INIT;
    enum { PROCESSES = 12 };
    struct counting *n = NULL;
    struct backend *local = NULL;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/store", test_dir());
    CLEANUP(mem_freep) char *data = pattern(SIZE, 0);
    CHECK_OK(fs_mkdirs(path, 0700, &err));
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(backend_local_open(dir, &local, &err));
    CLEANUP(backend_freep) struct backend *b = cached(counting_new(local, &n), (uint64_t)64 << 20);
    CHECK_OK(backend_put(b, PACK, data, SIZE, &err));
    n->delay_ms = 30;
    for (int i = 0; i < PROCESSES; i++) {
        pid_t pid = fork();
        CHECK(pid >= 0);
        if (pid == 0) {
            (void)alarm(60);
            backend_after_fork(b);
            _exit(reads(b, PACK, 0, data, SIZE) ? 0 : 1);
        }
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status = 0;
        CHECK(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK_INT(n->bytes, SIZE);
    CHECK_INT(n->stats, 1);
}

TEST(a_fetcher_that_dies_is_replaced)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *dir = cache_dir();
    CLEANUP(cache_disk_freep) struct cache_disk *disk = NULL;
    const struct cache_name name = {.number = 3};
    CHECK_OK(cache_disk_open(dir, CACHE_MIN, &disk, &err));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0)
        _exit(cache_disk_lock(disk, &name) >= 0 ? 0 : 1);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CLEANUP(fd_closep) int lock = cache_disk_lock(disk, &name);
    CHECK(lock >= 0);
}

TEST(a_block_cannot_stand_in_for_another)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *dir = cache_dir();
    CLEANUP(cache_disk_freep) struct cache_disk *disk = NULL;
    const struct cache_name one = {.number = 1}, two = {.number = 2};
    char got[5];
    CHECK_OK(cache_disk_open(dir, CACHE_MIN, &disk, &err));
    cache_disk_write(disk, &one, "hello", 5);
    CHECK_OK(cache_disk_read(disk, &one, 0, got, 5, &err));
    CHECK(memcmp(got, "hello", 5) == 0);
    CLEANUP(mem_freep) char *folder = mem_asprintf("%s/00", dir);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
    char from[80], to[80];
    memset(from, '0', 64);
    memcpy(from + 64, "-1", 3);
    memset(to, '0', 64);
    memcpy(to + 64, "-2", 3);
    CHECK(sys_rename(fd, from, to, 0) == 0);
    CHECK_RC(cache_disk_read(disk, &two, 0, got, 5, &err), RC_NOT_FOUND);
    CHECK_RC(cache_disk_read(disk, &one, 0, got, 5, &err), RC_NOT_FOUND);
}

TEST(a_directory_of_others_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *dir = cache_dir();
    struct cache_disk *disk = NULL;
    CHECK_OK(fs_mkdirs(dir, 0700, &err));
    CHECK(chmod(dir, 0777) == 0);
    CHECK_RC(cache_disk_open(dir, CACHE_MIN, &disk, &err), RC_DENIED);
    CHECK(strstr(err.msg, "chmod"));
}

TEST(writing_survives_every_failure)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *dir = cache_dir();
    CLEANUP(mem_freep) char *data = pattern(CACHE_BLOCK, 0);
    CLEANUP(mem_freep) char *got = mem_alloc(CACHE_BLOCK);
    CLEANUP(cache_disk_freep) struct cache_disk *disk = NULL;
    CHECK_OK(cache_disk_open(dir, CACHE_MIN, &disk, &err));
    for (unsigned i = 0;; i++) {
        struct cache_name name = {.number = i};
        fault_arm(i, FAULT_FAIL);
        cache_disk_write(disk, &name, data, CACHE_BLOCK);
        bool past = fault_passed() <= i;
        fault_disarm();
        if (cache_disk_read(disk, &name, 0, got, CACHE_BLOCK, NULL) == RC_OK)
            CHECK(memcmp(got, data, CACHE_BLOCK) == 0);
        if (past)
            break;
    }
}
