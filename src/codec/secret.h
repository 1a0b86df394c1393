/* Memory for keys: left out of core dumps, out of swap where the limits allow it, empty in a child
 * of a fork, and wiped when it is freed.  Threads: safe. */
#pragma once

#include <stddef.h>

/* `len` zero bytes, at most SECRET_MAX.  Never NULL; the caller's, secret_freep(). */
#define SECRET_MAX ((size_t)1 << 20)
void *secret_alloc(size_t len) __attribute__((returns_nonnull));

/* Wipe and free what the pointer variable points to; it is NULL afterwards.  NULL is fine. */
void secret_freep(void *ptr_to_ptr);

/* Wipe bytes that lie elsewhere (a stack, a buffer), in a way that is not optimised away. */
void secret_wipe(void *p, size_t len);
