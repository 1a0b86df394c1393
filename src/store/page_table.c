#include "store/page_table.h"

#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define FIRST_CAPACITY 4096

struct page_slot {
    struct page_name name;
    struct page_place place; /* chunk UINT32_MAX: empty */
};

/* Names are hashes: any bits of them will do. */
static size_t probe(const struct page_slot *slots, size_t capacity, const struct page_name *name)
{
    size_t at = (size_t)name->word[0] & (capacity - 1);
    while (slots[at].place.chunk != UINT32_MAX && memcmp(&slots[at].name, name, sizeof(*name)) != 0)
        at = (at + 1) & (capacity - 1);
    return at;
}

const struct page_place *page_table_find(const struct page_table *t, const struct page_name *name)
{
    if (!t->capacity)
        return NULL;
    const struct page_slot *s = &t->slots[probe(t->slots, t->capacity, name)];
    return s->place.chunk == UINT32_MAX ? NULL : &s->place;
}

static void grow(struct page_table *t)
{
    size_t capacity = t->capacity ? t->capacity * 2 : FIRST_CAPACITY;
    struct page_slot *slots = mem_alloc(capacity * sizeof(*slots));
    memset(slots, 0xff, capacity * sizeof(*slots)); /* all empty */
    for (size_t i = 0; i < t->capacity; i++)
        if (t->slots[i].place.chunk != UINT32_MAX)
            slots[probe(slots, capacity, &t->slots[i].name)] = t->slots[i];
    free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
}

void page_table_add(struct page_table *t, const struct page_name *name, struct page_place place)
{
    if (t->max && t->used >= t->max)
        return;
    if (t->used >= t->capacity / 4 * 3)
        grow(t);
    t->slots[probe(t->slots, t->capacity, name)] = (struct page_slot){*name, place};
    t->used++;
}

void page_table_done(struct page_table *t)
{
    free(t->slots);
    *t = (struct page_table){0};
}
