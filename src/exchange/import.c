#include "exchange/import.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/images.h"
#include "engine/host.h"
#include "exchange/describe.h"
#include "exchange/members.h"
#include "exchange/origin.h"
#include "rootfs/apply.h"
#include "store/done.h"
#include "store/memory.h"
#include "store/page_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PIECE ((size_t)256 << 10)
#define BUFFERS ((size_t)32 << 20) /* of pages that wait to be packed */
#define PODMAN_SHM "devshm-checkpoint.tar"
#define IMAGES "checkpoint/"
#define INVENTORY "inventory.img"

struct importing {
    const struct import_options *o;
    struct store_staging *staging;
    int dir;
    struct page_writer *writer; /* NULL: plain */
    struct origin origin;
    struct documents documents;
    struct buf metadata; /* the document, "" = none */
    bool has_inventory, has_shm, has_diff, has_deleted;
    uint64_t bytes, pages;
    uint8_t *data; /* PIECE bytes */
};

/* ---- where members go ---- */

/* What our own store makes in a checkpoint. */
static bool is_reserved(const char *name)
{
    static const char *const names[] = {MANIFEST_NAME, MANIFEST_SIGNATURE, METADATA_NAME,
                                        DONE_NAME,     MEMORY_NAME,        ORIGIN_NAME};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* The file that holds a member; the caller's (free). */
static char *file_of(const char *path, size_t number)
{
    const char *name = strncmp(path, IMAGES, strlen(IMAGES)) == 0 ? path + strlen(IMAGES) : path;
    if (strcmp(path, PODMAN_SHM) == 0)
        return mem_strdup(HOST_SHM_ARCHIVE);
    bool plain = *name && *name != '.' && strlen(name) <= 255 && !strchr(name, '/');
    return plain && !is_reserved(name) ? mem_strdup(name) : mem_asprintf("member-%06zu", number);
}

static bool is_page_image(const char *name, uint32_t *out_id)
{
    int end = 0;
    return sscanf(name, "pages-%9" SCNu32 ".img%n", out_id, &end) == 1 && end > 0 && !name[end];
}

/* ---- reading them ---- */

static void count(struct importing *i, size_t n)
{
    i->bytes += n;
    if (i->o->done)
        (void)__atomic_fetch_add(i->o->done, n, __ATOMIC_RELAXED);
}

static enum rc too_short(const struct member *m, struct err *err)
{
    return err_set(err, RC_CORRUPT, "'%.64s' has not the bytes that it promises", m->path);
}

static enum rc write_file(struct importing *i, const struct member *m, struct member_data *d,
                          const char *name, struct err *err)
{
    CLEANUP(fd_closep)
    int fd = sys_openat(i->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (fd < 0 && errno == EEXIST)
        return err_set(err, RC_CORRUPT, "it has '%.64s' twice", name);
    if (fd < 0)
        return err_sys(err, "make '%.64s'", name);
    for (uint64_t left = m->size; left > 0;) {
        size_t n = 0;
        enum rc rc = member_read(d, i->data, left < PIECE ? (size_t)left : PIECE, &n, err);
        if (!rc && n == 0)
            rc = too_short(m, err);
        if (!rc)
            rc = sys_write_all(fd, i->data, n, err);
        if (rc)
            return err_ctx(err, rc, "'%.64s'", m->path);
        left -= n;
        count(i, n);
    }
    return RC_OK;
}

/* Pages go to packs without touching a disk. */
static enum rc pack(struct importing *i, const struct member *m, struct member_data *d, uint32_t id,
                    struct err *err)
{
    struct page_input *in = NULL;
    uint64_t pages = m->size / MEMORY_PAGE;
    if (m->size % MEMORY_PAGE)
        return err_set(err, RC_CORRUPT, "'%.64s' has no whole pages", m->path);
    enum rc rc = page_writer_input(i->writer, id, pages, &in, err);
    for (uint64_t at = 0; !rc && at < pages;) {
        struct page_block *b = page_writer_take(i->writer, err);
        if (!b)
            return err ? err->rc : RC_IO;
        uint64_t left = pages - at;
        unsigned n = left < MEMORY_CHUNK_PAGES ? (unsigned)left : MEMORY_CHUNK_PAGES;
        size_t got = 0;
        rc = member_read(d, page_block_data(b), n * MEMORY_PAGE, &got, err);
        if (!rc && got != n * MEMORY_PAGE)
            rc = too_short(m, err);
        page_writer_give(i->writer, b, in, at, rc ? 0 : n);
        at += n;
        count(i, got);
    }
    if (rc == RC_EXISTS)
        return err_set(err, RC_CORRUPT, "it has '%.64s' twice", m->path);
    return rc;
}

/* The file is kept, too: what is read of it is a view. */
static enum rc note_document(const struct importing *i, const char *name, struct buf *out,
                             struct err *err)
{
    buf_cut(out, 0);
    return fs_read_file(i->dir, name, DESCRIBE_MAX, out, err);
}

static enum rc note(struct importing *i, const char *path, const char *name, struct err *err)
{
    if (strcmp(path, "config.dump") == 0)
        return note_document(i, name, &i->documents.config, err);
    if (strcmp(path, "spec.dump") == 0)
        return note_document(i, name, &i->documents.spec, err);
    if (strcmp(path, "status.dump") == 0)
        return note_document(i, name, &i->documents.status, err);
    if (strcmp(path, METADATA_NAME) == 0)
        return note_document(i, name, &i->metadata, err);
    if (strcmp(path, DONE_NAME) == 0) {
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        enum rc rc = note_document(i, name, &text, err);
        return rc ? rc : done_check(buf_str(&text), text.len, err);
    }
    i->has_inventory = i->has_inventory || strcmp(name, INVENTORY) == 0;
    i->has_shm = i->has_shm || strcmp(name, HOST_SHM_ARCHIVE) == 0;
    i->has_diff = i->has_diff || strcmp(name, ROOTFS_DIFF) == 0;
    i->has_deleted = i->has_deleted || strcmp(name, ROOTFS_DELETED) == 0 ||
                     strcmp(name, ROOTFS_DELETED_OLD) == 0;
    return RC_OK;
}

static enum rc take(void *arg, const struct member *m, struct member_data *d, struct err *err)
{
    struct importing *i = arg;
    uint32_t id = 0;
    if (strcmp(m->path, MEMORY_NAME) == 0)
        return err_set(err, RC_UNSUPPORTED,
                       "its memory is not in it but in packs of a store: use chrek copy, or chrek "
                       "export where it is");
    CLEANUP(mem_freep) char *name = file_of(m->path, i->origin.n);
    enum rc rc = RC_OK;
    if (is_page_image(name, &id))
        i->pages += m->size;
    if (i->writer && is_page_image(name, &id))
        rc = pack(i, m, d, id, err);
    else
        rc = write_file(i, m, d, name, err);
    origin_add(&i->origin, m->path, name, m->mode, m->mtime);
    return rc ? rc : note(i, m->path, name, err);
}

/* ---- what it is ---- */

/* What was written by chrek export for the tools of others is made anew when it is needed. */
static enum rc drop_others(const struct importing *i, struct err *err)
{
    static const char *const paths[] = {"config.dump",     "spec.dump", "status.dump",
                                        METADATA_NAME,     DONE_NAME,   MANIFEST_NAME,
                                        MANIFEST_SIGNATURE};
    for (size_t k = 0; k < i->origin.n; k++)
        for (size_t p = 0; p < ARRAY_LEN(paths); p++)
            if (strcmp(i->origin.members[k].path, paths[p]) == 0 &&
                sys_unlinkat(i->dir, i->origin.members[k].name, 0) < 0)
                return err_sys(err, "remove '%s'", i->origin.members[k].name);
    return RC_OK;
}

static enum rc keep_origin(struct importing *i, const char *engine, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = ORIGIN_MAX};
    i->origin.engine = mem_strdup(engine);
    origin_format(&i->origin, &text);
    if (text.overflowed)
        return err_set(err, RC_TOO_BIG, "the names of its members are too long");
    return fs_write_atomic(i->dir, ORIGIN_NAME, text.data, text.len, 0600, err);
}

static void add_label(struct metadata *m, const char *key, const char *value)
{
    m->labels = mem_realloc(m->labels, (m->n_labels + 1) * sizeof(*m->labels));
    m->labels[m->n_labels++] = (struct metadata_label){mem_strdup(key), mem_strdup(value)};
}

/* How the root of the tree was connected: to pipes of its engine, which a restore replaces. */
static void note_streams(const struct cr_process *root, struct metadata *m)
{
    for (size_t i = 0; i < root->n_descriptors; i++) {
        const struct cr_descriptor *d = &root->descriptors[i];
        uint32_t pipe = 0;
        if (d->fd > 2 || !d->file || m->stream_key[d->fd] ||
            sscanf(d->file->text, "pipe %" SCNu32, &pipe) != 1)
            continue;
        m->streams[d->fd] = METADATA_STREAM_PIPE;
        m->stream_key[d->fd] = mem_asprintf("pipe:[%" PRIu32 "]", pipe);
    }
}

/* What CRIU's images say of the tree's root, if they can be read. */
static void note_root(int dir, struct metadata *m)
{
    CLEANUP(cr_images_freep) struct cr_images *images = NULL;
    if (cr_images_load(dir, NULL, &images, NULL) != RC_OK || images->n == 0)
        return;
    m->root_pid = images->processes[0].pid;
    note_streams(&images->processes[0], m);
}

static enum rc describe(struct importing *i, struct metadata *m, const char **out_engine,
                        struct err *err)
{
    bool known = i->metadata.len > 0;
    enum rc rc = known ? metadata_parse(buf_str(&i->metadata), i->metadata.len, m, err) : RC_OK;
    if (rc)
        return err_ctx(err, rc, METADATA_NAME);
    if (m->ours) {
        *out_engine = "chrek";
        return drop_others(i, err);
    }
    *out_engine = known ? "chrek-reference" : describe_engine(&i->documents);
    rc = describe_read(&i->documents, m, err);
    if (rc)
        return rc;
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(now);
    if (!m->created_at)
        m->created_at = mem_strdup(now);
    if (!m->chrek_version)
        m->chrek_version = mem_strdup(CHREK_VERSION);
    m->has_shm = i->has_shm;
    m->host_shm = !i->has_shm;
    m->has_rootfs_diff = i->has_diff;
    m->has_deleted_files = i->has_deleted;
    note_root(i->dir, m);
    add_label(m, "imported-from", *out_engine);
    return keep_origin(i, *out_engine, err);
}

/* Everything that says how its memory was stored elsewhere is wrong here. */
static enum rc store_memory(struct importing *i, struct metadata *m, struct err *err)
{
    CLEANUP(memory_done) struct memory map = {0};
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    struct page_writer_totals t = {0};
    free(m->key);
    free(m->instance);
    m->key = m->instance = NULL;
    m->pages_bytes = i->pages;
    m->packed = i->writer != NULL;
    m->zero_bytes = m->known_bytes = m->packed_bytes = 0;
    if (!i->writer)
        return RC_OK;
    enum rc rc = page_writer_finish(i->writer, &map, &t, err);
    if (rc)
        return err_ctx(err, rc, "store memory");
    m->zero_bytes = t.zero * MEMORY_PAGE;
    m->known_bytes = t.known * MEMORY_PAGE;
    m->packed_bytes = t.written;
    memory_format(&map, &text);
    if (text.overflowed)
        return err_set(err, RC_TOO_BIG, "the map of this memory is too large");
    return fs_write_atomic(i->dir, MEMORY_NAME, text.data, text.len, 0600, err);
}

/* ---- all of it ---- */

/* A directory that vouches for itself is looked at before anything is taken from it. */
static enum rc verify_own(const char *path, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0 || faccessat(dir, MANIFEST_NAME, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return RC_OK;
    enum rc rc = store_adopt_unmarked(fd_steal(&dir), path, NULL, &e, err);
    if (!rc && store_entry_metadata(e)->key)
        return err_set(err, RC_UNSUPPORTED, "it is encrypted: use chrek copy");
    return rc ? rc : store_verify(e, STORE_BIG, 1, NULL, err);
}

static enum rc open_writer(struct importing *i, struct store *to, struct err *err)
{
    struct page_writer_options w = {.backend = store_backend(to),
                                    .domain = store_staging_domain(i->staging),
                                    .alone = store_staging_is_alone(i->staging),
                                    .codec = i->o->codec,
                                    .threads = i->o->threads,
                                    .buffer_bytes = BUFFERS,
                                    .expect_pages = BUFFERS / MEMORY_PAGE};
    return page_writer_open(&w, &i->writer, err);
}

static enum rc run(struct importing *i, struct import_result *out, struct err *err)
{
    CLEANUP(metadata_done) struct metadata m = {.checkpoint_id = NULL};
    const char *engine = "";
    enum rc rc = members_each(i->o->path, take, i, err);
    if (!rc && !i->has_inventory)
        rc = err_set(err, RC_CORRUPT,
                     "'%s' is no checkpoint: CRIU's " INVENTORY " is neither in it nor in its "
                     "folder checkpoint",
                     i->o->path);
    if (!rc)
        rc = describe(i, &m, &engine, err);
    if (!rc)
        rc = store_memory(i, &m, err);
    if (!rc)
        rc = store_commit(i->staging, &m, i->o->replace, err);
    if (rc)
        return rc;
    *out = (struct import_result){.engine = engine,
                                  .members = (unsigned)i->origin.n,
                                  .bytes = i->bytes,
                                  .memory_bytes = i->pages};
    return RC_OK;
}

enum rc exchange_import(struct store *to, const struct import_options *o, struct import_result *out,
                        struct err *err)
{
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    struct importing i = {.o = o, .dir = -1, .data = mem_alloc(PIECE)};
    enum rc rc = verify_own(o->path, err);
    if (!rc)
        rc = store_begin(to, o->id, !o->replace, &i.staging, err);
    if (!rc)
        rc = store_hold_packs(to, false, &hold, err);
    if (!rc) {
        i.dir = store_staging_fd(i.staging);
        rc = o->plain ? RC_OK : open_writer(&i, to, err);
    }
    if (!rc)
        rc = run(&i, out, err);
    page_writer_freep(&i.writer);
    store_abortp(&i.staging);
    origin_done(&i.origin);
    documents_done(&i.documents);
    buf_done(&i.metadata);
    free(i.data);
    return rc ? err_ctx(err, rc, "import '%s'", o->path) : RC_OK;
}
