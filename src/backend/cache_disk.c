#include "backend/cache_disk.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/hex.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SEGMENTS (CACHE_BLOCK / CACHE_SEGMENT)
#define TOUCH_AFTER_S 30     /* a use is noted when the last note is older */
#define STAGED "tmp-"        /* a block that is being written */
#define STAGED_OLD_S 3600    /* whose writer is dead */
#define KEPT_PERCENT 90      /* of the limit, after room was made */
#define NAME_MAX_LEN 100     /* of a block's file, with its folder */
#define NAP_MAX_NS 20000000L /* between looks at a lock */

struct cache_disk {
    int dir;
    uint64_t limit;
    uint64_t *usage; /* shared with all processes; atomic */
};

/* At the end of a block's file. */
struct trailer {
    char magic[8];
    uint64_t len;
};
static const char magic[8] = "chrekcb1";

/* ---- opening ---- */

static enum rc map_usage(struct cache_disk *c, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(c->dir, "usage", O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (fd < 0 || ftruncate(fd, sizeof(*c->usage)) < 0)
        return err_sys(err, "make 'usage'");
    void *at = mmap(NULL, sizeof(*c->usage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return err_sys(err, "map 'usage'");
    c->usage = at;
    return RC_OK;
}

enum rc cache_disk_open(const char *dir, uint64_t limit, struct cache_disk **out, struct err *err)
{
    struct stat st;
    CLEANUP(cache_disk_freep) struct cache_disk *c = mem_zalloc(sizeof(*c));
    c->dir = -1;
    c->limit = limit;
    enum rc rc = fs_mkdirs(dir, 0700, err);
    if (rc)
        return err_ctx(err, rc, "cache '%s'", dir);
    c->dir = sys_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
    if (c->dir < 0 || fstat(c->dir, &st) < 0)
        return err_sys(err, "open the cache '%s'", dir);
    if (st.st_uid != geteuid() || (st.st_mode & 0022))
        return err_set(err, RC_DENIED,
                       "cache '%s': it must belong to the user who restores, and nobody else may "
                       "write there; use another directory, or chown and chmod 700 it",
                       dir);
    if (sys_mkdirat(c->dir, "locks", 0700) < 0 && errno != EEXIST)
        return err_sys(err, "cache '%s': make 'locks'", dir);
    rc = map_usage(c, err);
    if (rc)
        return err_ctx(err, rc, "cache '%s'", dir);
    *out = STEAL(c);
    return RC_OK;
}

void cache_disk_freep(struct cache_disk **disk)
{
    struct cache_disk *c = STEAL(*disk);
    if (!c)
        return;
    if (c->usage)
        (void)munmap(c->usage, sizeof(*c->usage));
    fd_closep(&c->dir);
    free(c);
}

uint64_t cache_disk_usage(const struct cache_disk *c)
{
    return __atomic_load_n(c->usage, __ATOMIC_RELAXED);
}

static void add_usage(struct cache_disk *c, uint64_t bytes)
{
    (void)__atomic_fetch_add(c->usage, bytes, __ATOMIC_RELAXED);
}

static void take_usage(struct cache_disk *c, uint64_t bytes)
{
    uint64_t now = cache_disk_usage(c), less;
    do
        less = now > bytes ? now - bytes : 0; /* a count of everybody's may be behind */
    while (!__atomic_compare_exchange_n(c->usage, &now, less, true, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED));
}

/* ---- names ---- */

static void file_name(const struct cache_name *n, char out[NAME_MAX_LEN])
{
    char hex[2 * DIGEST_LEN + 1];
    hex_format(n->object.bytes, DIGEST_LEN, hex);
    (void)snprintf(out, NAME_MAX_LEN, "%.2s/%s-%" PRIu64, hex, hex, n->number);
}

/* The digest binds a segment to its place, so that no block can stand in for another. */
static void segment_digest(const struct cache_name *n, size_t segment, const void *data, size_t len,
                           struct digest *out)
{
    struct {
        struct digest content, object;
        uint64_t number, segment;
    } bound;
    memset(&bound, 0, sizeof(bound));
    digest_of(data, len, &bound.content);
    bound.object = n->object;
    bound.number = n->number;
    bound.segment = segment;
    digest_of(&bound, sizeof(bound), out);
}

static size_t segments_of(size_t len)
{
    return (len + CACHE_SEGMENT - 1) / CACHE_SEGMENT;
}

static size_t file_size(size_t len)
{
    return len + segments_of(len) * sizeof(struct digest) + sizeof(struct trailer);
}

/* ---- reading ---- */

static bool read_at(int fd, uint64_t offset, void *data, size_t len)
{
    size_t got = 0;
    while (got < len) {
        ssize_t n = pread(fd, (char *)data + got, len - got, (off_t)(offset + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        got += (size_t)n;
    }
    return true;
}

/* How many bytes the block has and what its segments' digests are. */
static bool read_trailer(int fd, const struct stat *st, size_t *out_len,
                         struct digest digests[SEGMENTS])
{
    struct trailer t;
    if (st->st_size < (off_t)sizeof(t) ||
        !read_at(fd, (uint64_t)st->st_size - sizeof(t), &t, sizeof(t)) ||
        memcmp(t.magic, magic, sizeof(magic)) != 0 || t.len == 0 || t.len > CACHE_BLOCK ||
        (uint64_t)st->st_size != file_size((size_t)t.len))
        return false;
    *out_len = (size_t)t.len;
    return read_at(fd, t.len, digests, segments_of(*out_len) * sizeof(*digests));
}

/* One segment, verified; what is wanted of it goes to `data`. */
static bool read_segment(int fd, const struct cache_name *n, size_t segment, size_t block_len,
                         const struct digest *want, uint8_t *buffer)
{
    size_t at = segment * CACHE_SEGMENT;
    size_t len = block_len - at < CACHE_SEGMENT ? block_len - at : CACHE_SEGMENT;
    struct digest d;
    if (!read_at(fd, at, buffer, len))
        return false;
    segment_digest(n, segment, buffer, len, &d);
    return digest_equal(&d, want);
}

static bool read_verified(int fd, const struct stat *st, const struct cache_name *n, size_t offset,
                          uint8_t *data, size_t len)
{
    struct digest digests[SEGMENTS];
    size_t block_len = 0, end = offset + len;
    if (!read_trailer(fd, st, &block_len, digests) || end > block_len)
        return false;
    CLEANUP(mem_freep) uint8_t *buffer = mem_alloc(CACHE_SEGMENT);
    for (size_t s = offset / CACHE_SEGMENT; s * CACHE_SEGMENT < end; s++) {
        size_t first = s * CACHE_SEGMENT, last = first + CACHE_SEGMENT;
        size_t from = offset > first ? offset : first, to = end < last ? end : last;
        if (!read_segment(fd, n, s, block_len, &digests[s], buffer))
            return false;
        memcpy(data + (from - offset), buffer + (from - first), to - from);
    }
    return true;
}

enum rc cache_disk_read(struct cache_disk *c, const struct cache_name *n, size_t offset, void *data,
                        size_t len, struct err *err)
{
    char name[NAME_MAX_LEN];
    struct stat st;
    file_name(n, name);
    CLEANUP(fd_closep) int fd = sys_openat(c->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return err_set(err, RC_NOT_FOUND, "it is not in the cache");
    if (!read_verified(fd, &st, n, offset, data, len)) {
        (void)cache_disk_remove(c, n);
        return err_set(err, RC_NOT_FOUND, "it was damaged in the cache");
    }
    if (time(NULL) - st.st_mtime > TOUCH_AFTER_S)
        (void)futimens(fd, NULL);
    return RC_OK;
}

bool cache_disk_remove(struct cache_disk *c, const struct cache_name *n)
{
    char name[NAME_MAX_LEN];
    struct stat st;
    file_name(n, name);
    if (fstatat(c->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || sys_unlinkat(c->dir, name, 0) < 0)
        return false;
    take_usage(c, (uint64_t)st.st_size);
    return true;
}

/* ---- making room ---- */

struct found {
    char *name;
    uint64_t size;
    struct timespec used;
};

struct all {
    struct found *list;
    size_t n;
    uint64_t bytes;
};

static void all_done(struct all *a)
{
    for (size_t i = 0; i < a->n; i++)
        free(a->list[i].name);
    free(a->list);
}

static void find_in(struct cache_disk *c, const char *folder, struct all *a)
{
    int fd = sys_openat(c->dir, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        fd_closep(&fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        if (strncmp(e->d_name, STAGED, strlen(STAGED)) == 0) {
            if (time(NULL) - st.st_mtime > STAGED_OLD_S)
                (void)unlinkat(fd, e->d_name, 0);
            continue;
        }
        if ((a->n & (a->n - 1)) == 0)
            a->list = mem_realloc(a->list, (a->n ? a->n * 2 : 1) * sizeof(*a->list));
        a->list[a->n++] = (struct found){mem_asprintf("%s/%s", folder, e->d_name),
                                         (uint64_t)st.st_size, st.st_mtim};
        a->bytes += (uint64_t)st.st_size;
    }
    (void)closedir(dir);
}

static int by_use(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    return x->used.tv_nsec < y->used.tv_nsec ? -1 : x->used.tv_nsec > y->used.tv_nsec;
}

/* One at a time; who comes meanwhile leaves it to the other. */
static void make_room(struct cache_disk *c)
{
    char folder[3];
    CLEANUP(all_done) struct all a = {.list = NULL};
    CLEANUP(fd_closep) int lock = sys_openat(c->dir, "clean", O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
        return;
    for (unsigned i = 0; i < 256; i++) {
        (void)snprintf(folder, sizeof(folder), "%02x", i);
        find_in(c, folder, &a);
    }
    if (a.n)
        qsort(a.list, a.n, sizeof(*a.list), by_use);
    uint64_t most = c->limit / 100 * KEPT_PERCENT;
    for (size_t i = 0; i < a.n && a.bytes > most; i++)
        if (unlinkat(c->dir, a.list[i].name, 0) == 0)
            a.bytes -= a.list[i].size;
    __atomic_store_n(c->usage, a.bytes, __ATOMIC_RELAXED);
}

/* ---- writing ---- */

static enum rc write_block(int fd, const struct cache_name *n, const uint8_t *data, size_t len,
                           struct err *err)
{
    struct digest digests[SEGMENTS];
    struct trailer t = {.len = len};
    size_t count = segments_of(len);
    memcpy(t.magic, magic, sizeof(magic));
    for (size_t s = 0; s < count; s++) {
        size_t at = s * CACHE_SEGMENT;
        segment_digest(n, s, data + at, len - at < CACHE_SEGMENT ? len - at : CACHE_SEGMENT,
                       &digests[s]);
    }
    enum rc rc = sys_write_all(fd, data, len, err);
    if (!rc)
        rc = sys_write_all(fd, digests, count * sizeof(*digests), err);
    return rc ? rc : sys_write_all(fd, &t, sizeof(t), err);
}

void cache_disk_write(struct cache_disk *c, const struct cache_name *n, const void *data,
                      size_t len)
{
    char name[NAME_MAX_LEN], random[17], staged[40], folder[3];
    if (file_size(len) > c->limit)
        return;
    if (cache_disk_usage(c) + file_size(len) > c->limit)
        make_room(c);
    if (cache_disk_usage(c) + file_size(len) > c->limit)
        return; /* somebody else is at it */
    file_name(n, name);
    rand_hex(random, 16);
    (void)snprintf(folder, sizeof(folder), "%.2s", name);
    (void)snprintf(staged, sizeof(staged), "%s/" STAGED "%s", folder, random);
    if (sys_mkdirat(c->dir, folder, 0700) < 0 && errno != EEXIST)
        return;
    CLEANUP(fd_closep) int fd = sys_openat(c->dir, staged, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd < 0)
        return;
    add_usage(c, file_size(len));
    if (write_block(fd, n, data, len, NULL) != RC_OK ||
        sys_rename(c->dir, staged, name, RENAME_NOREPLACE) < 0) {
        (void)unlinkat(c->dir, staged, 0);
        take_usage(c, file_size(len));
    }
}

int cache_disk_lock(struct cache_disk *c, const struct cache_name *n)
{
    char name[16];
    uint64_t mix = n->number * 0x9e3779b97f4a7c15U;
    (void)snprintf(name, sizeof(name), "locks/%02x", (unsigned)(n->object.bytes[1] ^ (mix >> 56)));
    CLEANUP(fd_closep) int fd = sys_openat(c->dir, name, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
    struct timespec nap = {0, 500000L};
    time_t end = time(NULL) + CACHE_PATIENCE_S;
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || time(NULL) > end)
            return -1;
        (void)nanosleep(&nap, NULL);
        nap.tv_nsec = nap.tv_nsec * 2 < NAP_MAX_NS ? nap.tv_nsec * 2 : NAP_MAX_NS;
    }
    return fd_steal(&fd);
}
