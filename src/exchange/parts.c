#include "exchange/parts.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/host.h"
#include "exchange/describe.h"
#include "store/done.h"
#include "store/dump_log.h"
#include "store/memory.h"

#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define PIECE_PAGES ((uint64_t)256)

/* ---- page images ---- */

static uint64_t stored(const struct page_reader *pages, uint32_t stream)
{
    const struct memory_stream *s = memory_stream(page_reader_memory(pages), stream);
    return s ? s->pages : 0;
}

/* CRIU's page map with everything in the page image that is elsewhere now. */
static enum rc whole_map(const struct parts *p, const struct cr_pagemap *m, struct err *err)
{
    if (m->present > stored(p->pages, m->pages_id) ||
        m->absent > stored(p->pages, m->pages_id | MEMORY_LAZY))
        return err_set(err, RC_CORRUPT, "'%s' has more pages than were stored", m->name);
    CLEANUP(mem_freep) struct cr_run *runs = mem_alloc((m->n_runs + 1) * sizeof(*runs));
    for (size_t i = 0; i < m->n_runs; i++) {
        runs[i] = m->runs[i];
        runs[i].flags |= CR_RUN_PRESENT;
    }
    return cr_pagemap_save(p->maps_dir, m->name, m->pages_id, runs, m->n_runs, err);
}

static enum rc whole_maps(struct parts *p, int images, struct err *err)
{
    enum rc rc = fs_private_dir(&p->maps_dir, err);
    if (!rc)
        rc = cr_pagemaps_load(images, &p->maps, err);
    for (size_t i = 0; !rc && i < p->maps.n; i++)
        rc = whole_map(p, &p->maps.list[i], err);
    return rc;
}

static enum rc read_run(const struct parts *all, const struct cr_pagemap *m, const struct cr_run *r,
                        void *buffer, part_sink *sink, void *arg, struct err *err)
{
    uint32_t stream = m->pages_id | (r->flags & CR_RUN_PRESENT ? 0 : MEMORY_LAZY);
    for (uint64_t at = 0; at < r->pages;) {
        uint64_t left = r->pages - at, n = left < PIECE_PAGES ? left : PIECE_PAGES;
        enum rc rc = page_reader_pages(all->pages, stream, r->at + at, n, buffer, err);
        if (!rc)
            rc = sink(arg, buffer, n * CR_PAGE, err);
        if (rc)
            return rc;
        at += n;
    }
    return RC_OK;
}

/* ---- reading ---- */

static enum rc read_file(const struct part *p, void *buffer, part_sink *sink, void *arg,
                         struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(p->dir, p->name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", p->name);
    for (uint64_t left = p->size; left > 0;) {
        uint64_t most = PIECE_PAGES * CR_PAGE;
        size_t n = 0;
        enum rc rc = sys_read_full(fd, buffer, left < most ? left : most, &n, err);
        if (!rc && n == 0)
            rc = err_set(err, RC_CORRUPT, "'%s' has become shorter", p->name);
        if (!rc)
            rc = sink(arg, buffer, n, err);
        if (rc)
            return rc;
        left -= n;
    }
    return RC_OK;
}

enum rc part_read(const struct parts *all, const struct part *p, part_sink *sink, void *arg,
                  struct err *err)
{
    if (p->is_text)
        return p->bytes.len ? sink(arg, p->bytes.data, p->bytes.len, err) : RC_OK;
    CLEANUP(mem_freep) void *buffer = mem_alloc(PIECE_PAGES * CR_PAGE);
    if (!p->map)
        return read_file(p, buffer, sink, arg, err);
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < p->map->n_runs; i++)
        rc = read_run(all, p->map, &p->map->runs[i], buffer, sink, arg, err);
    return rc;
}

/* ---- the list ---- */

static struct part *add(struct parts *p, const char *path, unsigned mode, int64_t mtime)
{
    if ((p->n & (p->n - 1)) == 0)
        p->list = mem_realloc(p->list, (p->n ? p->n * 2 : 1) * sizeof(*p->list));
    struct part *one = &p->list[p->n++];
    *one = (struct part){.path = mem_strdup(path), .mode = mode, .mtime = mtime, .dir = -1};
    return one;
}

static void add_text(struct parts *p, const char *path, int64_t mtime, struct buf *text)
{
    struct part *one = add(p, path, 0600, mtime);
    one->is_text = true;
    one->size = text->len;
    one->bytes = *text;
    *text = (struct buf)BUF_INIT;
}

static const struct cr_pagemap *map_of_image(const struct parts *p, const char *name)
{
    uint32_t id = 0;
    int end = 0;
    if (sscanf(name, "pages-%9" SCNu32 ".img%n", &id, &end) != 1 || name[end])
        return NULL;
    for (size_t i = 0; i < p->maps.n; i++)
        if (p->maps.list[i].pages_id == id)
            return &p->maps.list[i];
    return NULL;
}

/* A file of the checkpoint, or what stands for it. */
static enum rc add_file(struct parts *p, int dir, const char *path, const char *name, unsigned mode,
                        int64_t mtime, struct err *err)
{
    struct stat st;
    const struct cr_pagemap *map = map_of_image(p, name);
    bool is_map = p->maps_dir >= 0 && fstatat(p->maps_dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int from = is_map ? p->maps_dir : dir;
    if (!map && fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, "'%s'", name);
    struct part *one = add(p, path, mode, mtime ? mtime : map ? 0 : st.st_mtime);
    one->map = map;
    one->dir = from;
    one->name = mem_strdup(name);
    one->size = map ? (map->present + map->absent) * CR_PAGE : (uint64_t)st.st_size;
    return RC_OK;
}

static enum rc add_members(struct parts *p, int dir, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < p->origin.n; i++) {
        const struct origin_member *m = &p->origin.members[i];
        rc = add_file(p, dir, m->path, m->name, m->mode, m->mtime, err);
    }
    return rc;
}

static bool is_document(const char *name)
{
    static const char *const names[] = {MANIFEST_NAME, MANIFEST_SIGNATURE, METADATA_NAME,
                                        DONE_NAME,     MEMORY_NAME,        ORIGIN_NAME};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* Documents of a directory of the reference implementation, whose fields we do not all know. */
static bool is_foreign(const struct parts *p, const char *name)
{
    return !p->meta.ours && (strcmp(name, METADATA_NAME) == 0 || strcmp(name, DONE_NAME) == 0);
}

static bool is_image(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".img") == 0;
}

static char *path_in_archive(const char *name)
{
    if (strcmp(name, HOST_SHM_ARCHIVE) == 0)
        return mem_strdup("devshm-checkpoint.tar");
    return is_image(name) ? mem_asprintf("checkpoint/%s", name) : mem_strdup(name);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Names of the files, sorted: of the manifest, or where there is none of the directory. */
static enum rc list_names(const struct store_entry *e, int dir, char ***out, size_t *out_n,
                          struct err *err)
{
    const struct manifest *m = store_entry_manifest(e);
    char **names = mem_zalloc(((m ? m->n : 0) + 1) * sizeof(*names));
    size_t n = 0;
    for (size_t i = 0; m && i < m->n; i++)
        names[n++] = mem_strdup(m->files[i].name);
    int fd = m ? -1 : sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!m && !d) {
        free(names);
        fd_closep(&fd);
        return err_sys(err, "read the checkpoint's directory");
    }
    for (const struct dirent *x; d && (x = readdir(d));) {
        struct stat st;
        if (fstatat(dir, x->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
            continue;
        names = mem_realloc(names, (n + 2) * sizeof(*names));
        names[n++] = mem_strdup(x->d_name);
    }
    if (d)
        (void)closedir(d);
    names[n] = NULL;
    qsort(names, n, sizeof(*names), by_name);
    *out = names;
    *out_n = n;
    return RC_OK;
}

static void free_names(char ***names)
{
    store_free_ids(*names);
}

static bool has_name(char *const *names, const char *name)
{
    while (names && *names && strcmp(*names, name) != 0)
        names++;
    return names && *names;
}

static enum rc add_files(struct parts *p, const struct store_entry *e, int dir,
                         enum parts_layout layout, struct err *err)
{
    static const char stats[] = "stats-dump"; /* in a manifest or not, as the log is */
    CLEANUP(buf_done) struct buf log = BUF_INIT;
    CLEANUP(free_names) char **names = NULL;
    struct stat st;
    size_t n = 0;
    enum rc rc = list_names(e, dir, &names, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        CLEANUP(mem_freep)
        char *path = layout == PARTS_ARCHIVE ? path_in_archive(names[i]) : mem_strdup(names[i]);
        if (strcmp(names[i], DUMP_LOG_PACKED) == 0)
            continue;
        if (!is_document(names[i]) || (layout == PARTS_FLAT && is_foreign(p, names[i])))
            rc = add_file(p, dir, path, names[i], 0600, 0, err);
    }
    if (!rc && layout == PARTS_ARCHIVE && !has_name(names, stats) &&
        fstatat(dir, stats, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
        rc = add_file(p, dir, stats, stats, 0600, 0, err);
    if (!rc && (layout == PARTS_ARCHIVE || has_name(names, DUMP_LOG_PACKED)) &&
        !has_name(names, DUMP_LOG_NAME) && dump_log_read(dir, &log, NULL) == RC_OK)
        add_text(p, DUMP_LOG_NAME, time(NULL), &log);
    /* Page images of packed memory are in no list. */
    for (size_t i = 0; !rc && i < p->maps.n; i++) {
        CLEANUP(mem_freep) char *name = mem_asprintf("pages-%u.img", p->maps.list[i].pages_id);
        CLEANUP(mem_freep)
        char *path = layout == PARTS_ARCHIVE ? path_in_archive(name) : mem_strdup(name);
        rc = add_file(p, dir, path, name, 0600, time(NULL), err);
    }
    return rc;
}

static enum rc add_documents(struct parts *p, int dir, struct err *err)
{
    CLEANUP(documents_done) struct documents d = {.config = BUF_INIT};
    CLEANUP(buf_done) struct buf own = BUF_INIT;
    int64_t now = time(NULL);
    describe_write(&p->meta, &d);
    add_text(p, "config.dump", now, &d.config);
    add_text(p, "spec.dump", now, &d.spec);
    add_text(p, "status.dump", now, &d.status);
    if (!p->meta.ours) /* it has what we do not know of */
        return add_file(p, dir, METADATA_NAME, METADATA_NAME, 0600, 0, err);
    metadata_format(&p->meta, &own);
    add_text(p, METADATA_NAME, now, &own);
    return RC_OK;
}

/* ---- all of it ---- */

/* The metadata as that of a checkpoint in the clear, with its memory in page images. */
static enum rc copy_metadata(const struct store_entry *e, struct metadata *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = METADATA_MAX};
    metadata_format(store_entry_metadata(e), &text);
    enum rc rc = metadata_parse(buf_str(&text), text.len, out, err);
    if (rc)
        return rc;
    out->ours = store_entry_metadata(e)->ours;
    free(out->key);
    free(out->instance);
    out->key = out->instance = NULL;
    out->packed = false;
    out->zero_bytes = out->known_bytes = out->packed_bytes = 0;
    return RC_OK;
}

static enum rc read_origin(int dir, struct origin *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = ORIGIN_MAX};
    enum rc rc = fs_read_file(dir, ORIGIN_NAME, ORIGIN_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    return rc ? rc : origin_parse(buf_str(&text), text.len, out, err);
}

enum rc parts_make(struct store_entry *e, enum parts_layout layout, struct parts *out,
                   struct err *err)
{
    CLEANUP(parts_done) struct parts p = {.maps_dir = -1};
    int dir = -1;
    enum rc rc = store_entry_reveal(e, "*", &dir, err);
    if (!rc && store_entry_manifest(e))
        rc = store_verify(e, STORE_BIG, 1, NULL, err);
    if (!rc)
        rc = store_entry_pages(e, &p.pages, err);
    if (!rc && p.pages)
        rc = whole_maps(&p, dir, err);
    if (!rc)
        rc = copy_metadata(e, &p.meta, err);
    if (!rc)
        rc = read_origin(dir, &p.origin, err);
    if (!rc && p.origin.engine)
        rc = add_members(&p, dir, err);
    else if (!rc) {
        rc = layout == PARTS_ARCHIVE ? add_documents(&p, dir, err) : RC_OK;
        if (!rc)
            rc = add_files(&p, e, dir, layout, err);
    }
    if (rc)
        return rc;
    *out = p;
    p = (struct parts){.maps_dir = -1};
    return RC_OK;
}

void parts_done(struct parts *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].path);
        free(p->list[i].name);
        buf_done(&p->list[i].bytes);
    }
    free(p->list);
    origin_done(&p->origin);
    metadata_done(&p->meta);
    cr_pagemaps_done(&p->maps);
    fd_closep(&p->maps_dir);
    *p = (struct parts){.maps_dir = -1};
}
