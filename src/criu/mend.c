#include "criu/mend.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"

#include <criu_files.pb-c.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define FILES_IMAGE "files.img"
#define IMAGE_MAX ((size_t)256 << 20)
#define ENTRY_MAX ((uint32_t)1 << 20)
#define HEAD 8 /* two magic numbers */

static bool stands_still(const Criu__Timerfd *t)
{
    return t->ticks && !t->vsec && !t->vnsec && (t->isec || t->insec);
}

/* Append one entry to `out`, mended if need be. */
static enum rc copy_entry(const uint8_t *data, uint32_t len, struct buf *out, size_t *mended,
                          struct err *err)
{
    Criu__FileEntry *e = criu__file_entry__unpack(NULL, len, data);
    if (!e)
        return err_set(err, RC_CORRUPT, FILES_IMAGE " holds an entry that makes no sense");
    if (e->tfd && stands_still(e->tfd)) {
        e->tfd->vsec = e->tfd->isec;
        e->tfd->vnsec = e->tfd->insec;
        (*mended)++;
    }
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

static enum rc copy_entries(const struct buf *in, struct buf *out, size_t *mended, struct err *err)
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
        enum rc rc = copy_entry((const uint8_t *)in->data + at, len, out, mended, err);
        if (rc)
            return rc;
        at += len;
    }
    return RC_OK;
}

enum rc cr_mend(int dirfd, size_t *out_mended, struct err *err)
{
    CLEANUP(buf_done) struct buf in = {.max = IMAGE_MAX};
    CLEANUP(buf_done) struct buf out = {.max = 2 * IMAGE_MAX};
    size_t mended = 0;
    enum rc rc = fs_read_file(dirfd, FILES_IMAGE, IMAGE_MAX, &in, err);
    if (rc == RC_NOT_FOUND) {
        *out_mended = 0;
        return RC_OK; /* a tree without open files has none */
    }
    if (!rc && in.len < HEAD)
        rc = err_set(err, RC_CORRUPT, FILES_IMAGE " is cut short");
    if (!rc)
        rc = copy_entries(&in, &out, &mended, err);
    if (!rc && mended)
        rc = fs_write_whole(dirfd, FILES_IMAGE, out.data, out.len, 0644, err);
    if (rc)
        return rc;
    *out_mended = mended;
    return RC_OK;
}
