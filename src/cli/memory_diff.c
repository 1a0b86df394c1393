#include "cli/memory_diff.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/pagemap.h"
#include "store/page_names.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* One of the two checkpoints. */
struct side {
    int dir;                         /* of images, borrowed */
    const struct page_reader *pages; /* NULL: its page images are files */
    struct page_names names;
    struct cr_pagemaps maps;
};

static void side_done(struct side *s)
{
    page_names_done(&s->names);
    cr_pagemaps_done(&s->maps);
}

static enum rc load_side(struct store *store, struct store_entry *e, struct side *out,
                         struct err *err)
{
    enum rc rc = store_entry_reveal(e, "*.img", &out->dir, err);
    if (!rc)
        rc = cr_pagemaps_load(out->dir, &out->maps, err);
    if (!rc)
        rc = store_entry_pages(e, &out->pages, err);
    if (rc || !out->pages)
        return rc;
    const struct memory *m = page_reader_memory(out->pages);
    if (store_entry_metadata(e)->key) /* names of encrypted pages are a secret of their domain */
        return page_names_compute(out->pages, &out->names, err);
    return page_names_load(store_backend(store), m, &out->names, err);
}

/* A walk through the pages of one page map. */
struct walk {
    const struct side *side;
    const struct cr_pagemap *map; /* NULL: nothing */
    size_t run;
    uint64_t page; /* of the run */
    int fd;        /* page image of a plain checkpoint */
};

static bool is_over(const struct walk *w)
{
    return !w->map || w->run >= w->map->n_runs;
}

static uint64_t address_of(const struct walk *w)
{
    return w->map->runs[w->run].address + w->page * CR_PAGE;
}

static void advance(struct walk *w)
{
    if (!w->map || ++w->page < w->map->runs[w->run].pages)
        return;
    w->page = 0;
    w->run++;
}

static enum cr_memory kind_at(const struct walk *w)
{
    const struct cr_mapping *m = cr_mapping_of(w->map, address_of(w));
    if (!w->map->pid)
        return CR_MEMORY_SHARED;
    return m ? cr_memory_kind(m->status, m->flags) : CR_MEMORY_OTHER;
}

static enum rc name_in_file(struct walk *w, uint64_t page, struct page_name *out, struct err *err)
{
    char data[CR_PAGE], name[40];
    static const char zeros[CR_PAGE];
    (void)snprintf(name, sizeof(name), "pages-%u.img", w->map->pages_id);
    if (w->fd < 0)
        w->fd = sys_openat(w->side->dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (w->fd < 0)
        return err_sys(err, "open '%s'", name);
    if (pread(w->fd, data, sizeof(data), (off_t)(page * CR_PAGE)) != (ssize_t)sizeof(data))
        return err_set(err, RC_CORRUPT, "'%s' has no page %ju", name, (uintmax_t)page);
    *out = (struct page_name){{0}};
    if (memcmp(data, zeros, sizeof(data)) != 0)
        page_name(NULL, data, out);
    return RC_OK;
}

/* The name of the page that the walk is at; all zero for a zero page. */
static enum rc name_at(struct walk *w, struct page_name *out, struct err *err)
{
    if (!w->map)
        return err_set(err, RC_INVALID, "no page map");
    const struct cr_run *r = &w->map->runs[w->run];
    if (!w->side->pages)
        return name_in_file(w, r->at + w->page, out, err);
    const struct memory *m = page_reader_memory(w->side->pages);
    uint32_t id = w->map->pages_id | (r->flags & CR_RUN_PRESENT ? 0 : MEMORY_LAZY);
    const struct memory_stream *s = memory_stream(m, id);
    if (!s || r->at + w->page >= s->pages)
        return err_set(err, RC_CORRUPT, "'%s' has more pages than were stored", w->map->name);
    const struct page_name *name = page_names_find(&w->side->names, m, s, r->at + w->page);
    *out = name ? *name : (struct page_name){{0}};
    return RC_OK;
}

/* ---- rows ---- */

struct rows {
    struct memory_diff_row *list;
    size_t n;
};

static struct memory_diff_row *row_of(struct rows *r, uint32_t pid, enum cr_memory kind)
{
    for (size_t i = r->n; i-- > 0;)
        if (r->list[i].pid == pid && r->list[i].kind == kind)
            return &r->list[i];
    r->list = mem_realloc(r->list, (r->n + 1) * sizeof(*r->list));
    r->list[r->n] = (struct memory_diff_row){.pid = pid, .kind = kind};
    return &r->list[r->n++];
}

static enum rc compare_maps(struct walk *a, struct walk *b, struct rows *rows, struct err *err)
{
    while (!is_over(a) || !is_over(b)) {
        uint64_t x = is_over(a) ? UINT64_MAX : address_of(a);
        uint64_t y = is_over(b) ? UINT64_MAX : address_of(b);
        struct walk *w = x <= y ? a : b;
        struct memory_diff_row *row = row_of(rows, w->map->pid, kind_at(w));
        if (x != y) {
            *(x < y ? &row->removed : &row->added) += 1;
            advance(w);
            continue;
        }
        struct page_name one, two;
        enum rc rc = name_at(a, &one, err);
        if (!rc)
            rc = name_at(b, &two, err);
        if (rc)
            return rc;
        *(memcmp(&one, &two, sizeof(one)) == 0 ? &row->same : &row->changed) += 1;
        advance(a);
        advance(b);
    }
    return RC_OK;
}

static const struct cr_pagemap *find_map(const struct cr_pagemaps *maps, const char *name)
{
    for (size_t i = 0; i < maps->n; i++)
        if (strcmp(maps->list[i].name, name) == 0)
            return &maps->list[i];
    return NULL;
}

static enum rc compare_named(const struct side *a, const struct side *b, const char *name,
                             struct rows *rows, struct err *err)
{
    struct walk x = {.side = a, .map = find_map(&a->maps, name), .fd = -1};
    struct walk y = {.side = b, .map = find_map(&b->maps, name), .fd = -1};
    enum rc rc = compare_maps(&x, &y, rows, err);
    fd_closep(&x.fd);
    fd_closep(&y.fd);
    return rc;
}

static int by_process(const void *a, const void *b)
{
    const struct memory_diff_row *x = a, *y = b;
    if (x->pid != y->pid)
        return (x->pid > y->pid) - (x->pid < y->pid);
    return (int)x->kind - (int)y->kind;
}

enum rc memory_diff(struct store *s, struct store_entry *a, struct store_entry *b,
                    struct memory_diff_row **out, size_t *out_n, struct err *err)
{
    CLEANUP(side_done) struct side x = {0};
    CLEANUP(side_done) struct side y = {0};
    struct rows rows = {.list = mem_zalloc(sizeof(struct memory_diff_row))};
    enum rc rc = load_side(s, a, &x, err);
    if (!rc)
        rc = load_side(s, b, &y, err);
    for (size_t i = 0; !rc && i < x.maps.n; i++)
        rc = compare_named(&x, &y, x.maps.list[i].name, &rows, err);
    for (size_t i = 0; !rc && i < y.maps.n; i++)
        if (!find_map(&x.maps, y.maps.list[i].name))
            rc = compare_named(&x, &y, y.maps.list[i].name, &rows, err);
    if (rc) {
        free(rows.list);
        return rc;
    }
    qsort(rows.list, rows.n, sizeof(*rows.list), by_process);
    *out = rows.list;
    *out_n = rows.n;
    return RC_OK;
}
