/* Which pages are known, by name: a hash table, open addressing, linear probing.
 * Threads: one at a time. */
#pragma once

#include "store/pack.h"

#include <stdbool.h>

/* Where a page lies. */
struct page_place {
    uint32_t chunk; /* the caller's number */
    uint32_t page;  /* inside it */
};

struct page_table {
    struct page_slot *slots;
    size_t capacity, used, max; /* max: pages that are remembered, 0 = any number */
};

/* The place of a page of this name, NULL when it is not known. */
const struct page_place *page_table_find(const struct page_table *t, const struct page_name *name);
/* Remember a page that is not in the table.  Past `max` it is not remembered: the table only saves
 * space, it decides nothing. */
void page_table_add(struct page_table *t, const struct page_name *name, struct page_place place);
void page_table_done(struct page_table *t);
