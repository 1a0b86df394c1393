/* The keys of a store.
 *
 * Everything that is encrypted in a store is so with a *data key*, which no file holds in the
 * clear: `keys/<data key>/<wrapping>` are objects with the data key wrapped by another key, which
 * comes from a key file, a mounted Secret or a key service (codec/keyfile.h).  There may be several
 * wrappings of one data key, and several data keys: each is a domain of its own, that shares no
 * page with others.
 *
 * Keys are read again in a child of a fork, where the parent's are gone.
 *
 * Threads: a keyring may be used by several threads at once.
 */
#pragma once

#include "backend/backend.h"
#include "base/err.h"
#include "codec/keyfile.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KEYRING_PREFIX "keys/"
#define KEYRING_FILES_MAX 16U
#define KEYRING_TIMEOUT_NS ((uint64_t)30 * 1000000000)

/* Where keys that wrap come from: one of the two. */
struct key_source {
    /* A file, or a directory of files as a mounted Secret is one: each that does not begin with a
     * dot is a key to read with; `key`, else the first by name, is the one to write with.  Links
     * are followed.  Nobody but the owner may have rights on the files. */
    const char *file;
    const char *command; /* see store/key_command.h */
    uint64_t timeout_ns; /* of the command; 0 = KEYRING_TIMEOUT_NS */
};

struct keyring;

/* Read the keys of a source.
 * s       its strings are copied
 * errors  RC_INVALID (no source or both, no key), RC_NOT_FOUND, RC_DENIED (others may read it) */
enum rc keyring_open(const struct key_source *s, struct keyring **out, struct err *err);
void keyring_freep(struct keyring **p);

/* The data key of this name.
 * errors  RC_DENIED (it is there, wrapped with other keys), RC_CORRUPT (it is not there, or
 * damaged, or the key service's answer is another key), RC_UNAVAILABLE, RC_TIMEOUT, RC_IO */
enum rc keyring_find(struct keyring *k, struct backend *b, const struct key_id *id,
                     uint8_t out[CIPHER_KEY], struct err *err);

/* The data key to write with: the first by name that our key opens, a new one when there is none.
 * durable  a new one is in the store when this returns RC_OK
 * errors   as keyring_find() */
enum rc keyring_current(struct keyring *k, struct backend *b, struct key_id *out_id,
                        uint8_t out[CIPHER_KEY], struct err *err);

struct keyring_rotation {
    size_t keys;    /* data keys that the new key wraps now, too */
    size_t removed; /* wrappings of the old key */
};

/* Wrap every data key that `from` opens with `to`, look whether that opens, and then remove the old
 * wrappings (unless `keep`).  Chunks and files are not touched.  When it is broken off each data
 * key has at least one of the two wrappings, and it may be run again. errors  RC_DENIED (neither of
 * the two opens any), and as keyring_find() */
enum rc keyring_rotate(struct keyring *from, struct keyring *to, struct backend *b, bool keep,
                       struct keyring_rotation *out, struct err *err);

/* Every wrapping of the store by name of the data key; blobs are left out.
 * out     the caller's (free)
 * errors  RC_CORRUPT (which object), RC_IO */
enum rc keyring_list(struct backend *b, struct wrapped_key **out, size_t *out_n, struct err *err);

/* Whether `k` could open this wrapping; of a key service that is tried only by opening. */
bool keyring_fits(struct keyring *k, const struct wrapped_key *w);
