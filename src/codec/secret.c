#include "codec/secret.h"

#include "base/compiler.h"

#include <openssl/crypto.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define HEADER 64 /* in front of what the caller sees: the length of the mapping */

void *secret_alloc(size_t len)
{
    if (len > SECRET_MAX)
        abort();
    size_t whole = len + HEADER;
    uint8_t *p = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        abort(); /* as mem_alloc() */
    /* Each is a second line of defence: where it cannot be had the key is used all the same. */
    (void)mlock(p, whole);
    (void)madvise(p, whole, MADV_DONTDUMP);
    (void)madvise(p, whole, MADV_WIPEONFORK);
    *(size_t *)(void *)p = whole;
    return p + HEADER;
}

void secret_inherit(void *p, bool inherit)
{
    uint8_t *begin = (uint8_t *)p - HEADER;
    size_t whole = *(size_t *)(void *)begin;
    (void)mlock(begin, whole); /* locks are not inherited */
    (void)madvise(begin, whole, inherit ? MADV_KEEPONFORK : MADV_WIPEONFORK);
}

void secret_freep(void *ptr_to_ptr)
{
    void **p = ptr_to_ptr;
    uint8_t *user = STEAL(*p);
    if (!user)
        return;
    /* In a forked child the length is gone with the rest: the page stays until the child ends. */
    size_t whole = *(size_t *)(void *)(user - HEADER);
    if (whole == 0)
        return;
    OPENSSL_cleanse(user - HEADER, whole);
    (void)munmap(user - HEADER, whole);
}

void secret_wipe(void *p, size_t len)
{
    OPENSSL_cleanse(p, len);
}
