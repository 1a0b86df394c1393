/* Which pages of an address space have been read ahead, and where what was read lies.
 *
 * The table of one round is made anew from that of the round before: a page stays in it only if
 * somebody says so (known_keep()), so nothing is in use for longer than it was said to be good.
 * Threads: an object belongs to one thread.
 */
#pragma once

#include "store/page_writer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct known_run {
    uint64_t address, pages;
    const struct page_input *draft;
    uint64_t at; /* of the first page, in the draft */
};

struct known {
    struct known_run *list; /* after known_sort(): by address, disjoint */
    size_t n;
};

void known_done(struct known *k);

void known_add(struct known *k, const struct known_run *run);
void known_sort(struct known *k);

/* The first part of a range: what the table has from `address` on, or how far it has nothing.
 * k        sorted
 * out      its pages; draft NULL: nothing is known of them.  1..pages pages
 * returns  whether something is known */
bool known_find(const struct known *k, uint64_t address, uint64_t pages, struct known_run *out);

/* Told of pages of which nothing is known. */
typedef void known_missing(void *arg, uint64_t address, uint64_t pages);

/* Take over into another table what is known of a range; `missing` is told of the rest. */
void known_keep(const struct known *from, uint64_t address, uint64_t pages, struct known *to,
                known_missing *missing, void *arg);
