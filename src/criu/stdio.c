#include "criu/stdio.h"

#include "base/compiler.h"
#include "criu/images_priv.h"

#include <fcntl.h>
#include <stdbool.h>

/* Kinds of CRIU's files, and where file_entry holds the details of a pipe. */
enum { TYPE_PIPE = 2, TYPE_TTY = 11, FIELD_PIPE = 18 };

struct numbers {
    uint32_t value[20];
    struct wire_field details;
};

/* The plain fields of a message, and the details of a pipe. */
static void read_numbers(struct wire w, struct numbers *out)
{
    struct wire_field f;
    *out = (struct numbers){.details = {.data = NULL}};
    while (wire_next(&w, &f) == 1) {
        if (f.number == FIELD_PIPE && f.is_bytes)
            out->details = f;
        else if (f.number < ARRAY_LEN(out->value) && !f.is_bytes)
            out->value[f.number] = (uint32_t)f.value;
    }
}

static enum rc first_numbers(int dirfd, const char *name, uint32_t pid, struct numbers *out,
                             struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = false;
    struct wire w;
    enum rc rc = pid ? image_open(dirfd, &i, err, "%s-%u.img", name, pid)
                     : image_open(dirfd, &i, err, "%s.img", name);
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    if (!rc && !more)
        return image_broken(&i, err);
    if (!rc)
        read_numbers(w, out);
    return rc;
}

struct stream {
    uint32_t id; /* of the open file, 0 = closed */
    uint32_t type, pipe, flags;
    bool answered; /* the other end is in the tree */
};

/* fdinfo_entry: id 1, type 3, fd 4 */
static enum rc load_descriptors(int dirfd, uint32_t table, struct stream streams[3],
                                struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(dirfd, &i, err, "fdinfo-%u.img", table);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    while (!rc && more) {
        struct wire w;
        struct numbers n;
        rc = image_next(&i, &w, &more, err);
        if (rc || !more)
            break;
        read_numbers(w, &n);
        if (n.value[4] < 3)
            streams[n.value[4]] = (struct stream){.id = n.value[1], .type = n.value[3]};
    }
    return rc;
}

/* file_entry: id 2, pipe 18; pipe_entry: pipe_id 2, flags 3 */
static void look_at_file(struct stream streams[3], const struct numbers *file, bool peers)
{
    struct numbers pipe;
    if (!file->details.data)
        return;
    read_numbers(wire_of(file->details.data, file->details.len), &pipe);
    for (int i = 0; i < 3; i++) {
        struct stream *s = &streams[i];
        if (s->type != TYPE_PIPE)
            continue;
        if (!peers && s->id == file->value[2]) {
            s->pipe = pipe.value[2];
            s->flags = pipe.value[3];
        }
        if (peers && s->pipe == pipe.value[2] && ((s->flags ^ pipe.value[3]) & O_ACCMODE))
            s->answered = true;
    }
}

static enum rc load_pipes(int dirfd, struct stream streams[3], bool peers, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(dirfd, &i, err, "files.img");
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* nothing is open */
    while (!rc && more) {
        struct wire w;
        struct numbers n;
        rc = image_next(&i, &w, &more, err);
        if (rc || !more)
            break;
        read_numbers(w, &n);
        look_at_file(streams, &n, peers);
    }
    return rc;
}

enum rc cr_stdio_load(int dirfd, struct cr_stdio *out, struct err *err)
{
    struct stream streams[3] = {{0}};
    struct numbers root = {{0}}, ids = {{0}};
    enum rc rc = first_numbers(dirfd, "pstree", 0, &root, err);
    if (!rc) /* pstree_entry: pid 1; task_kobj_ids_entry: files_id 2 */
        rc = first_numbers(dirfd, "ids", root.value[1], &ids, err);
    if (!rc)
        rc = load_descriptors(dirfd, ids.value[2], streams, err);
    if (!rc)
        rc = load_pipes(dirfd, streams, false, err);
    if (!rc)
        rc = load_pipes(dirfd, streams, true, err);
    if (rc)
        return rc;
    *out = (struct cr_stdio){.pipe = {0}};
    for (int i = 0; i < 3; i++) {
        const struct stream *s = &streams[i];
        if (s->type == TYPE_PIPE && s->pipe && !s->answered) {
            out->kind[i] = CR_STREAM_PIPE;
            out->pipe[i] = s->pipe;
        } else if (s->type == TYPE_TTY) {
            out->kind[i] = CR_STREAM_TTY;
        }
    }
    return RC_OK;
}
