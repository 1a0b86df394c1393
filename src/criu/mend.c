#include "criu/mend.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "criu/images_priv.h"

#include <criu_files.pb-c.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FILES_IMAGE "files.img"
#define IMAGE_MAX ((size_t)256 << 20)
#define ENTRY_MAX ((uint32_t)1 << 20)
#define HEAD 8 /* two magic numbers */

static bool stands_still(const Criu__Timerfd *t)
{
    return t->ticks && !t->vsec && !t->vnsec && (t->isec || t->insec);
}

typedef bool change(void *arg, Criu__FileEntry *e); /* whether it has changed it */

/* Append one entry to `out`, changed if need be. */
static enum rc copy_entry(const uint8_t *data, uint32_t len, struct buf *out, change *one,
                          void *arg, size_t *changed, struct err *err)
{
    Criu__FileEntry *e = criu__file_entry__unpack(NULL, len, data);
    if (!e)
        return err_set(err, RC_CORRUPT, FILES_IMAGE " holds an entry that makes no sense");
    *changed += one(arg, e);
    uint32_t size = (uint32_t)criu__file_entry__get_packed_size(e);
    buf_add(out, &size, sizeof(size));
    uint8_t *to = buf_room(out, size);
    if (to) {
        (void)criu__file_entry__pack(e, to);
        buf_grew(out, size);
    }
    criu__file_entry__free_unpacked(e, NULL);
    return RC_OK;
}

static enum rc copy_entries(const struct buf *in, struct buf *out, change *one, void *arg,
                            size_t *changed, struct err *err)
{
    buf_add(out, in->data, HEAD);
    for (size_t at = HEAD; at < in->len;) {
        uint32_t len;
        if (in->len - at < sizeof(len))
            return err_set(err, RC_CORRUPT, FILES_IMAGE " is cut short");
        memcpy(&len, in->data + at, sizeof(len));
        at += sizeof(len);
        if (len > ENTRY_MAX || len > in->len - at)
            return err_set(err, RC_CORRUPT, FILES_IMAGE " is cut short");
        enum rc rc = copy_entry((const uint8_t *)in->data + at, len, out, one, arg, changed, err);
        if (rc)
            return rc;
        at += len;
    }
    return RC_OK;
}

/* Change the entries of the table of open files, in place. */
static enum rc change_files(int dirfd, change *one, void *arg, size_t *out_changed, struct err *err)
{
    CLEANUP(buf_done) struct buf in = {.max = IMAGE_MAX};
    CLEANUP(buf_done) struct buf out = {.max = 2 * IMAGE_MAX};
    size_t changed = 0;
    enum rc rc = fs_read_file(dirfd, FILES_IMAGE, IMAGE_MAX, &in, err);
    if (rc == RC_NOT_FOUND) {
        *out_changed = 0;
        return RC_OK; /* a tree without open files has none */
    }
    if (!rc && in.len < HEAD)
        rc = err_set(err, RC_CORRUPT, FILES_IMAGE " is cut short");
    if (!rc)
        rc = copy_entries(&in, &out, one, arg, &changed, err);
    if (!rc && changed)
        rc = fs_write_whole(dirfd, FILES_IMAGE, out.data, out.len, 0644, err);
    if (rc)
        return rc;
    *out_changed = changed;
    return RC_OK;
}

/* ---- timers ---- */

static bool wind(void *arg, Criu__FileEntry *e)
{
    (void)arg;
    if (!e->tfd || !stands_still(e->tfd))
        return false;
    e->tfd->vsec = e->tfd->isec;
    e->tfd->vnsec = e->tfd->insec;
    return true;
}

enum rc cr_mend(int dirfd, size_t *out_mended, struct err *err)
{
    return change_files(dirfd, wind, NULL, out_mended, err);
}

/* ---- logs ---- */

struct logs {
    cr_size_now *now;
    void *arg;
    uint32_t *deleted; /* files that CRIU makes anew */
    size_t n;
};

static enum rc load_deleted(int dirfd, struct logs *l, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(dirfd, &i, err, "remap-fpath.img");
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    while (!rc && more) {
        struct wire w;
        struct wire_field f;
        int left = 0;
        rc = image_next(&i, &w, &more, err);
        if (!rc && more && l->n == IMAGES_AREAS_MAX)
            return err_set(err, RC_TOO_BIG, "%s: too many deleted files", i.name);
        while (!rc && more && (left = wire_next(&w, &f)) == 1)
            if (f.number == 1 && !f.is_bytes) {
                l->deleted = mem_realloc(l->deleted, (l->n + 1) * sizeof(*l->deleted));
                l->deleted[l->n++] = (uint32_t)f.value;
            }
        if (left < 0)
            return image_broken(&i, err);
    }
    return rc;
}

static bool is_written_at_its_end(const struct logs *l, const Criu__RegFile *f)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->deleted[i] == f->id)
            return false;
    return f->has_size && (f->flags & O_ACCMODE) == O_WRONLY &&
           (f->flags & O_APPEND || f->pos == f->size);
}

static bool follow(void *arg, Criu__FileEntry *e)
{
    struct logs *l = arg;
    uint64_t now = 0;
    if (!e->reg || !is_written_at_its_end(l, e->reg) ||
        !l->now(l->arg, e->reg->name, e->reg->size, &now))
        return false;
    e->reg->size = e->reg->pos = now;
    return true;
}

enum rc cr_follow_logs(int dirfd, cr_size_now *now, void *arg, struct err *err)
{
    struct logs l = {.now = now, .arg = arg};
    size_t changed = 0;
    enum rc rc = load_deleted(dirfd, &l, err);
    if (!rc)
        rc = change_files(dirfd, follow, &l, &changed, err);
    free(l.deleted);
    return rc;
}
