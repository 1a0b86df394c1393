#include "store/domain.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/secret.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* In memory of codec/secret.h: all zero in a child of a fork. */
struct keys {
    bool there;
    uint8_t data[CIPHER_KEY], names[CIPHER_KEY];
};

struct domain {
    struct key_id id;
    struct keys *keys;
};

enum rc domain_new(const struct key_id *id, const uint8_t data_key[CIPHER_KEY], struct domain **out,
                   struct err *err)
{
    CLEANUP(domain_freep) struct domain *d = mem_zalloc(sizeof(*d));
    d->id = *id;
    d->keys = secret_alloc(sizeof(*d->keys));
    memcpy(d->keys->data, data_key, CIPHER_KEY);
    enum rc rc =
        cipher_derive(data_key, NULL, 0, "chrek page names 1", d->keys->names, CIPHER_KEY, err);
    d->keys->there = true;
    if (!rc)
        *out = STEAL(d);
    return rc;
}

void domain_freep(struct domain **p)
{
    struct domain *d = STEAL(*p);
    if (!d)
        return;
    secret_freep(&d->keys);
    free(d);
}

const struct key_id *domain_id(const struct domain *d)
{
    return &d->id;
}

const uint8_t *domain_name_key(const struct domain *d)
{
    return d->keys->names;
}

static enum rc derive(const struct domain *d, const void *salt, size_t len, const char *purpose,
                      uint8_t out[CIPHER_KEY], struct err *err)
{
    if (!d->keys->there)
        return err_set(err, RC_IO, "keys are not inherited over a fork");
    return cipher_derive(d->keys->data, salt, len, purpose, out, CIPHER_KEY, err);
}

enum rc domain_pack_key(const struct domain *d, const char *pack, uint8_t out[CIPHER_KEY],
                        struct err *err)
{
    return derive(d, pack, strlen(pack), "chrek pack 1", out, err);
}

enum rc domain_file_key(const struct domain *d, const void *salt, size_t len,
                        uint8_t out[CIPHER_KEY], struct err *err)
{
    return derive(d, salt, len, "chrek file 1", out, err);
}
