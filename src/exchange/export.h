/* A checkpoint of a store for others: as an archive like the kubelet's and Podman's, as a
 * directory, or as an image in OCI layout that CRI-O, containerd and Podman take for a checkpoint.
 *
 * An imported checkpoint gets the members that it had.  Of one of our own, metadata.json goes with
 * it, so that an import gives it back as it was.  What is written appears whole or not at all.
 *
 * Threads: safe. */
#pragma once

#include "store/store.h"

#include <stdbool.h>

enum export_kind {
    EXPORT_ARCHIVE,
    EXPORT_DIRECTORY, /* as docs/formats/checkpoint-directory.md, in the "plain" format */
    EXPORT_IMAGE,     /* an OCI image layout: a directory, or a tar archive of one */
};

enum export_compression { EXPORT_PLAIN, EXPORT_GZIP, EXPORT_ZSTD };

struct export_options {
    enum export_kind kind;
    const char *path;
    bool replace;                        /* what is at `path` */
    enum export_compression compression; /* of an archive, or of an image's layer */
    bool tar;                            /* EXPORT_IMAGE: one file */
    const char *tag;                     /* EXPORT_IMAGE: its name, NULL = the checkpoint's id */
    const char *runtime;                 /* EXPORT_IMAGE: what marks it for Podman, see image.h */
    uint64_t *done;                      /* counted up atomically by the bytes read; may be NULL */
};

/* errors  RC_EXISTS (something is at `path`), RC_INVALID (`path`), those of parts_make(),
 *         RC_NO_SPACE, RC_IO; then nothing has appeared */
enum rc exchange_export(struct store_entry *e, const struct export_options *o, struct err *err);
