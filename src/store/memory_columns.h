/* The tables of a memory map (store/memory.h) as columns: the form in which they are kept.
 *
 * What stands below each other in a table is alike, and most of it can be foretold from what stands
 * before: so each column is written by itself, as differences to what was to be expected
 * (docs/formats/memory.md).  A few hundred bytes are left of tables of many kilobytes, beside the
 * digests, when that is compressed.
 *
 * Threads: safe.
 */
#pragma once

#include "base/buf.h"
#include "store/memory.h"

#include <stdbool.h>
#include <stddef.h>

/* Append the columns. */
void memory_columns_put(const struct memory *m, struct buf *out);

/* Fill the tables, which have room for their numbers of rows, from all of `data`.  What they say is
 * not looked at, but for each number's range.  returns  whether these are columns */
bool memory_columns_take(struct memory *m, const void *data, size_t len);

/* The least bytes that columns of so many rows take. */
uint64_t memory_columns_least(const struct memory *m);
