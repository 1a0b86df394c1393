#include "engine/view.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/pagemap.h"
#include "store/page_scan.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_image(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".img") == 0;
}

static enum rc copy_images(const struct store_entry *e, int dir, struct err *err)
{
    const struct manifest *m = store_entry_manifest(e);
    for (size_t i = 0; i < m->n; i++) {
        enum rc rc =
            is_image(m->files[i].name) ? store_entry_copy(e, m->files[i].name, dir, err) : RC_OK;
        if (rc)
            return rc;
    }
    return RC_OK;
}

/* ---- one page image, parted ---- */

struct parting {
    const struct page_reader *pages;
    struct page_scan *scan; /* of what stays CRIU's */
    const struct cr_pagemap *map;
    struct view *view;
    struct cr_run *runs; /* what stays CRIU's */
    size_t n_runs;
    bool lazy;     /* what is not CRIU's is mentioned */
    uint64_t kept; /* pages in the page image of these */
};

static void add_gap(struct parting *p, uint32_t stream, uint64_t address, uint64_t pages,
                    uint64_t at)
{
    struct view *v = p->view;
    if ((v->n_gaps & (v->n_gaps - 1)) == 0)
        v->gaps = mem_realloc(v->gaps, (v->n_gaps ? v->n_gaps * 2 : 1) * sizeof(*v->gaps));
    v->gaps[v->n_gaps++] = (struct pager_gap){
        .pid = p->map->pid, .stream = stream, .address = address, .pages = pages, .first = at};
    v->gap_bytes += pages * CR_PAGE;
}

static void add_run(struct parting *p, uint64_t address, uint64_t pages, uint32_t flags)
{
    if ((p->n_runs & (p->n_runs - 1)) == 0)
        p->runs = mem_realloc(p->runs, (p->n_runs ? p->n_runs * 2 : 1) * sizeof(*p->runs));
    p->runs[p->n_runs++] = (struct cr_run){.address = address, .pages = pages, .flags = flags};
}

static enum rc keep(struct parting *p, uint32_t stream, uint64_t address, uint64_t pages,
                    uint64_t at, struct err *err)
{
    uint64_t to = p->kept * CR_PAGE;
    add_run(p, address, pages, CR_RUN_PRESENT);
    p->view->eager_bytes += pages * CR_PAGE;
    p->kept += pages;
    return page_scan_want(p->scan, stream, at, pages, p->map->pages_id, to, err);
}

/* A run may reach over several mappings. */
static enum rc part_run(struct parting *p, const struct cr_run *run, struct err *err)
{
    uint64_t address = run->address, pages = run->pages, at = run->at;
    uint32_t stream = p->map->pages_id | (run->flags & CR_RUN_PRESENT ? 0 : MEMORY_LAZY);
    while (pages > 0) {
        const struct cr_mapping *m = cr_mapping_of(p->map, address);
        uint64_t room = m ? (m->end - address) / CR_PAGE : pages, n = room < pages ? room : pages;
        bool waits = m && (run->flags & CR_RUN_LAZY) && cr_mapping_can_wait(m);
        if (m && m->inherited && (run->flags & CR_RUN_LAZY))
            p->view->shared_bytes += n * CR_PAGE;
        enum rc rc = RC_OK;
        if (waits && p->lazy)
            add_run(p, address, n, CR_RUN_LAZY);
        if (waits)
            add_gap(p, stream, address, n, at);
        else
            rc = keep(p, stream, address, n, at, err);
        if (rc)
            return rc;
        address += n * CR_PAGE;
        at += n;
        pages -= n;
    }
    return RC_OK;
}

static uint64_t stored(const struct parting *p, uint32_t stream)
{
    const struct memory_stream *s = memory_stream(page_reader_memory(p->pages), stream);
    return s ? s->pages : 0;
}

static void image_name(uint32_t id, char out[40])
{
    (void)snprintf(out, 40, "pages-%u.img", id);
}

/* The page image gets its pages with those of the others; where they are zero it has holes. */
static enum rc make_image(const struct parting *p, int dir, struct err *err)
{
    char name[40];
    image_name(p->map->pages_id, name);
    CLEANUP(fd_closep)
    int fd = sys_openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)(p->kept * CR_PAGE)) < 0)
        return err_sys(err, "make '%s'", name);
    return RC_OK;
}

static enum rc part(struct parting *p, int dir, struct err *err)
{
    if (p->map->present > stored(p, p->map->pages_id) ||
        p->map->absent > stored(p, p->map->pages_id | MEMORY_LAZY))
        return err_set(err, RC_CORRUPT, "'%s' has more pages than were stored", p->map->name);
    for (size_t i = 0; i < p->map->n_runs; i++) {
        enum rc rc = part_run(p, &p->map->runs[i], err);
        if (rc)
            return rc;
    }
    enum rc rc = make_image(p, dir, err);
    return rc ? rc : cr_pagemap_save(dir, p->map->name, p->map->pages_id, p->runs, p->n_runs, err);
}

static enum rc write_piece(int dir, const struct page_piece *p, const uint8_t *pages,
                           struct err *err)
{
    char name[40];
    image_name(p->place, name);
    CLEANUP(fd_closep) int fd = sys_openat(dir, name, O_WRONLY | O_NOFOLLOW, 0);
    if (fd < 0 || lseek(fd, (off_t)p->to, SEEK_SET) < 0)
        return err_sys(err, "open '%s'", name);
    return sys_write_all(fd, pages + p->at * MEMORY_PAGE, p->pages * MEMORY_PAGE, err);
}

static enum rc write_pieces(void *arg, const struct page_piece *pieces, size_t n,
                            const uint8_t *pages, struct err *err)
{
    const struct view *v = arg;
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < n; i++)
        rc = write_piece(v->dir, &pieces[i], pages, err);
    return rc;
}

static enum rc part_all(const struct page_reader *pages, bool lazy, struct view *v, struct err *err)
{
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps maps = {0};
    CLEANUP(page_scan_freep) struct page_scan *scan = page_scan_new(pages);
    enum rc rc = cr_pagemaps_load(v->dir, &maps, err);
    for (size_t i = 0; !rc && i < maps.n; i++) {
        struct parting p = {
            .pages = pages, .scan = scan, .map = &maps.list[i], .view = v, .lazy = lazy};
        rc = part(&p, v->dir, err);
        free(p.runs);
    }
    if (rc)
        return rc;
    page_scan_begin(scan, write_pieces, v);
    return page_scan_finish(scan, err);
}

enum rc view_make(const struct store_entry *e, const struct page_reader *pages, bool lazy,
                  struct view *out, struct err *err)
{
    CLEANUP(view_done) struct view v = VIEW_INIT;
    enum rc rc = fs_private_dir(&v.dir, err);
    if (!rc)
        rc = copy_images(e, v.dir, err);
    if (!rc)
        rc = part_all(pages, lazy, &v, err);
    if (rc)
        return err_ctx(err, rc, "prepare the images");
    *out = v;
    v = (struct view)VIEW_INIT;
    return RC_OK;
}

void view_done(struct view *v)
{
    fd_closep(&v->dir);
    free(v->gaps);
    *v = (struct view)VIEW_INIT;
}
