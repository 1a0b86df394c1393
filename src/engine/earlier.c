#include "engine/earlier.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/hex.h"
#include "criu/pagemap.h"
#include "store/recent.h"

#include <stdlib.h>
#include <string.h>

#define READS_MAX 8U        /* chunks for each 64 pages */
#define READS_MAX_REMOTE 2U /* they take a request each */
#define FETCH_MAX                                                                                  \
    ((uint64_t)64 << 20) /* bytes of files that are worth fetching to know addresses */

struct earlier {
    struct store_entry *entry;
    struct page_past *past;
    struct cr_pagemaps maps;
};

void earlier_freep(struct earlier **p)
{
    struct earlier *e = STEAL(*p);
    if (!e)
        return;
    cr_pagemaps_done(&e->maps);
    page_past_freep(&e->past);
    store_entry_freep(&e->entry);
    free(e);
}

/* Whether its packs belong to the domain that new ones will belong to. */
static bool is_of_domain(const struct store_entry *e, const struct domain *d)
{
    char hex[2 * KEYFILE_ID + 1];
    const char *key = store_entry_metadata(e)->key;
    if (!d || !key)
        return !d && !key;
    hex_format(domain_id(d)->bytes, KEYFILE_ID, hex);
    return strcmp(hex, key) == 0;
}

static bool is_near(const struct earlier *e, const struct store *s)
{
    const struct manifest *m = store_entry_manifest(e->entry);
    uint64_t bytes = 0;
    for (size_t i = 0; m && i < m->n; i++)
        bytes += m->files[i].size;
    return !store_is_remote(s) || bytes <= FETCH_MAX;
}

static enum rc load(struct earlier *e, bool remote)
{
    static const char *const patterns[] = {"pagemap-*.img", "mm-*.img", "pstree.img"};
    const struct page_reader *pages = NULL;
    int dir = -1;
    enum rc rc = store_entry_pages(e->entry, &pages, NULL);
    for (size_t i = 0; !rc && i < ARRAY_LEN(patterns); i++)
        rc = store_entry_reveal(e->entry, patterns[i], &dir, NULL);
    if (!rc && pages)
        rc = cr_pagemaps_load(dir, &e->maps, NULL);
    if (!rc && pages)
        e->past = page_past_new(pages, remote ? READS_MAX_REMOTE : READS_MAX);
    return rc;
}

struct earlier *earlier_open(struct store *s, const char *name, const char *parent,
                             const struct domain *d)
{
    CLEANUP(earlier_freep) struct earlier *e = mem_zalloc(sizeof(*e));
    e->entry = store_recent_entry(s, name);
    if (!e->entry && parent && store_find(s, parent, &e->entry, NULL) != RC_OK)
        return NULL;
    if (!e->entry || !store_entry_metadata(e->entry)->packed || !is_of_domain(e->entry, d) ||
        !is_near(e, s) || load(e, store_is_remote(s)) != RC_OK || !e->past)
        return NULL;
    return STEAL(e);
}

const struct page_past *earlier_pages(const struct earlier *e)
{
    return e ? e->past : NULL;
}

static const struct cr_pagemap *map_named(const struct earlier *e, const char *name)
{
    for (size_t i = 0; i < e->maps.n; i++)
        if (strcmp(e->maps.list[i].name, name) == 0)
            return &e->maps.list[i];
    return NULL;
}

/* The first run that ends after an address: they are in order. */
static size_t run_after(const struct cr_pagemap *m, uint64_t address)
{
    size_t low = 0, high = m->n_runs;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->runs[middle].address + m->runs[middle].pages * CR_PAGE <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

void earlier_tell(const struct earlier *e, const char *map, uint64_t address, uint64_t pages,
                  const struct page_writer *w, struct page_input *in, uint64_t first)
{
    const struct cr_pagemap *m = e ? map_named(e, map) : NULL;
    uint64_t end = address + pages * CR_PAGE;
    for (size_t i = m ? run_after(m, address) : 0; m && i < m->n_runs; i++) {
        const struct cr_run *r = &m->runs[i];
        if (r->address >= end)
            break;
        uint64_t from = r->address > address ? r->address : address;
        uint64_t until = r->address + r->pages * CR_PAGE;
        until = until < end ? until : end;
        uint32_t stream = m->pages_id | (r->flags & CR_RUN_PRESENT ? 0 : MEMORY_LAZY);
        page_writer_like(w, in, first + (from - address) / CR_PAGE, (until - from) / CR_PAGE,
                         stream, r->at + (from - r->address) / CR_PAGE);
    }
}
