/* Allocation.  Small, fixed-size and already-limited requests: these never return NULL, they end
 * the process.  Under a cgroup limit malloc() does not fail, the kernel kills; so every program
 * here must survive SIGKILL at any instruction anyway, and a NULL check would only be code that
 * never ran. A size that comes from outside goes through a limit first (RC_TOO_BIG), then here.
 * Thread: safe.
 */
#pragma once

#include "base/compiler.h"

#include <stddef.h>

void *mem_alloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));
void *mem_zalloc(size_t size) __attribute__((malloc, alloc_size(1), returns_nonnull));

/* Like realloc(); `p` may be NULL.  What was at `p` is the result's. */
void *mem_realloc(void *p, size_t size) __attribute__((alloc_size(2), returns_nonnull));

/* A copy of a string; the caller's (free).  NULL gives NULL. */
char *mem_strdup(const char *s);

/* A formatted string; the caller's (free). */
char *mem_asprintf(const char *fmt, ...) PRINTF_LIKE(1, 2);

/* For CLEANUP(): frees what the pointer variable points to. */
void mem_freep(void *ptr_to_ptr);
