#include "engine/known.h"

#include "base/mem.h"

#include <stdlib.h>

void known_done(struct known *k)
{
    free(k->list);
    *k = (struct known){0};
}

static uint64_t end_of(const struct known_run *r)
{
    return r->address + r->pages * MEMORY_PAGE;
}

void known_add(struct known *k, const struct known_run *run)
{
    struct known_run *last = k->n ? &k->list[k->n - 1] : NULL;
    if (last && end_of(last) == run->address && last->draft == run->draft &&
        last->at + last->pages == run->at) {
        last->pages += run->pages;
        return;
    }
    if (!k->list || (k->n & (k->n - 1)) == 0)
        k->list = mem_realloc(k->list, (k->n ? k->n * 2 : 1) * sizeof(*k->list));
    k->list[k->n++] = *run;
}

static int by_address(const void *a, const void *b)
{
    const struct known_run *x = a, *y = b;
    return (x->address > y->address) - (x->address < y->address);
}

void known_sort(struct known *k)
{
    if (k->n)
        qsort(k->list, k->n, sizeof(*k->list), by_address);
}

/* Index of the first run that ends after the address. */
static size_t first_after(const struct known *k, uint64_t address)
{
    size_t low = 0, high = k->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (end_of(&k->list[middle]) <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool known_find(const struct known *k, uint64_t address, uint64_t pages, struct known_run *out)
{
    size_t i = first_after(k, address);
    const struct known_run *r = i < k->n ? &k->list[i] : NULL;
    uint64_t until = address + pages * MEMORY_PAGE;
    if (!r || r->address > address) {
        uint64_t stop = r && r->address < until ? r->address : until;
        *out = (struct known_run){address, (stop - address) / MEMORY_PAGE, NULL, 0};
        return false;
    }
    uint64_t skip = (address - r->address) / MEMORY_PAGE, left = r->pages - skip;
    *out = (struct known_run){address, left < pages ? left : pages, r->draft, r->at + skip};
    return true;
}

void known_keep(const struct known *from, uint64_t address, uint64_t pages, struct known *to,
                known_missing *missing, void *arg)
{
    while (pages > 0) {
        struct known_run part;
        if (known_find(from, address, pages, &part))
            known_add(to, &part);
        else
            missing(arg, part.address, part.pages);
        address += part.pages * MEMORY_PAGE;
        pages -= part.pages;
    }
}
