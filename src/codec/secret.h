/* Memory for keys: left out of core dumps, out of swap where the limits allow it, empty in a child
 * of a fork, and wiped when it is freed.  Threads: safe. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* `len` zero bytes, at most SECRET_MAX.  Never NULL; the caller's, secret_freep(). */
#define SECRET_MAX ((size_t)1 << 20)
void *secret_alloc(size_t len) __attribute__((returns_nonnull));

/* Whether a child of a fork gets what is there (true), or zeros: at first zeros.  A child that has
 * got it says false as well, so that the next one has not, and it is locked in memory once more. */
void secret_inherit(void *p, bool inherit);

/* Wipe and free what the pointer variable points to; it is NULL afterwards.  NULL is fine. */
void secret_freep(void *ptr_to_ptr);

/* Wipe bytes that lie elsewhere (a stack, a buffer), in a way that is not optimised away. */
void secret_wipe(void *p, size_t len);
