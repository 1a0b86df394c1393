#include "criu/locks.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "criu/images_priv.h"

#include <stdlib.h>
#include <string.h>

#define LOCKS_MAX (1U << 20)
#define KIND_POSIX 1U /* the kernel's FL_* */
#define KIND_FLOCK 2U
#define KIND_OFD 1024U
#define TYPE_WRITE 1U

struct raw_lock {
    uint64_t kind, type, pid, fd;
    int64_t start, len;
};

struct raw_locks {
    struct raw_lock *list;
    size_t n;
};

static void raw_done(struct raw_locks *raw)
{
    free(raw->list);
}

static enum rc add_raw(const struct image *i, struct wire w, struct raw_locks *out, struct err *err)
{
    struct raw_lock lock = {0};
    struct wire_field f;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        lock.kind = f.number == 1 ? f.value : lock.kind;
        lock.type = f.number == 2 ? f.value : lock.type;
        lock.pid = f.number == 3 ? f.value : lock.pid;
        lock.fd = f.number == 4 ? f.value : lock.fd;
        lock.start = f.number == 5 ? (int64_t)f.value : lock.start;
        lock.len = f.number == 6 ? (int64_t)f.value : lock.len;
    }
    if (more < 0)
        return image_broken(i, err);
    if (out->n == LOCKS_MAX)
        return err_set(err, RC_TOO_BIG, "%s: more than %u locks", i->name, LOCKS_MAX);
    if (!(lock.kind & (KIND_POSIX | KIND_FLOCK | KIND_OFD)))
        return RC_OK;
    out->list = mem_realloc(out->list, (out->n + 1) * sizeof(lock));
    out->list[out->n++] = lock;
    return RC_OK;
}

static enum rc load_raw(int dirfd, struct raw_locks *out, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(dirfd, &i, err, "filelocks.img");
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    while (!rc && more) {
        struct wire w;
        rc = image_next(&i, &w, &more, err);
        if (!rc && more)
            rc = add_raw(&i, w, out, err);
    }
    return rc;
}

/* Field `wanted` of the message whose field `key` is `value`, or of the first one without a key;
 * 0 if there is none. */
static enum rc find_number(struct image *i, uint32_t key, uint64_t value, uint32_t wanted,
                           uint32_t *out, struct err *err)
{
    bool more = true;
    enum rc rc = RC_OK;
    *out = 0;
    while (!rc && more) {
        struct wire w;
        struct wire_field f;
        uint64_t have = 0, number = 0;
        int left = 0;
        rc = image_next(i, &w, &more, err);
        while (!rc && more && (left = wire_next(&w, &f)) == 1) {
            have = f.number == key ? f.value : have;
            number = f.number == wanted ? f.value : number;
        }
        if (left < 0)
            return image_broken(i, err);
        if (!rc && more && (!key || have == value)) {
            *out = (uint32_t)number;
            return RC_OK;
        }
    }
    return rc;
}

/* Which file a descriptor of a process is; 0 when that cannot be told. */
static enum rc file_id(int dirfd, const struct raw_lock *lock, uint32_t *out, struct err *err)
{
    CLEANUP(image_done) struct image ids = {.at = 0};
    CLEANUP(image_done) struct image table = {.at = 0};
    uint32_t number = 0;
    enum rc rc = image_open(dirfd, &ids, err, "ids-%u.img", (unsigned)lock->pid);
    if (!rc)
        rc = find_number(&ids, 0, 0, 3, &number, err);
    if (!rc)
        rc = image_open(dirfd, &table, err, "fdinfo-%u.img", (unsigned)number);
    if (!rc)
        rc = find_number(&table, 4, lock->fd, 1, out, err);
    return rc;
}

static enum rc resolve(int dirfd, const struct raw_locks *raw, const struct cr_files *files,
                       struct cr_lock *list, size_t *n, struct err *err)
{
    for (size_t i = 0; i < raw->n; i++) {
        const struct raw_lock *lock = &raw->list[i];
        uint32_t id = 0;
        enum rc rc = file_id(dirfd, lock, &id, err);
        if (rc)
            return rc == RC_NOT_FOUND ? err_set(err, RC_CORRUPT, "filelocks.img: of no process")
                                      : rc;
        const struct cr_file *file = id ? image_files_find(files, id) : NULL;
        if (!file || strcmp(file->kind, "file") != 0 || file->text[0] != '/')
            continue;
        list[(*n)++] = (struct cr_lock){.path = mem_strdup(file->text),
                                        .flock = lock->kind & KIND_FLOCK,
                                        .write = lock->type == TYPE_WRITE,
                                        .start = lock->start,
                                        .len = lock->len};
    }
    return RC_OK;
}

enum rc cr_locks_load(int dirfd, struct cr_lock **out, size_t *out_n, struct err *err)
{
    CLEANUP(raw_done) struct raw_locks raw = {0};
    CLEANUP(image_files_done) struct cr_files files = {0};
    size_t n = 0;
    enum rc rc = load_raw(dirfd, &raw, err);
    if (!rc && raw.n)
        rc = image_files_load(dirfd, &files, err);
    if (rc)
        return rc;
    struct cr_lock *list = mem_zalloc((raw.n + 1) * sizeof(*list));
    rc = resolve(dirfd, &raw, &files, list, &n, err);
    if (rc) {
        cr_locks_free(list, n);
        return rc;
    }
    *out = list;
    *out_n = n;
    return RC_OK;
}

void cr_locks_free(struct cr_lock *locks, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(locks[i].path);
    free(locks);
}
