/* A checkpoint of another program into a store: the archive of the kubelet (containerd, CRI-O), of
 * `podman container checkpoint --export` or of `chrek export`, the directory of the reference
 * implementation, or any directory with CRIU's images in it or in its folder checkpoint/.
 *
 * Nothing is lost: members that mean nothing to us are kept as they are, and exported again under
 * their own names (exchange/origin.h).  Memory is packed on its way, so that its size is nobody's
 * concern but the store's.  A checkpoint of our own comes back as it was.
 *
 * Digests are made here: what was wrong before the import stays unknown, but for a directory with a
 * manifest of ours, which is verified first.
 *
 * Threads: safe. */
#pragma once

#include "codec/compress.h"
#include "store/store.h"

#include <stdbool.h>

struct import_options {
    const char *path; /* of the archive or directory */
    const char *id;   /* that the checkpoint gets */
    bool replace;     /* one of this id that is there */
    bool plain;       /* keep page images as files */
    enum compress_codec codec;
    unsigned threads; /* that compress, at least 1 */
    uint64_t *done;   /* counted up atomically by the bytes read; may be NULL */
};

struct import_result {
    const char *engine; /* who made it, see origin.h; static */
    unsigned members;
    uint64_t bytes, memory_bytes;
};

/* errors  those of members_each(), store_begin() and store_commit(); RC_CORRUPT (no checkpoint; a
 *         page image of no whole pages; two members that would be one file), RC_UNSUPPORTED (its
 *         memory is not in it) */
enum rc exchange_import(struct store *to, const struct import_options *o, struct import_result *out,
                        struct err *err);
