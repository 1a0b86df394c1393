/* What `chrek inspect` tells of a checkpoint's metadata and files.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "codec/json.h"
#include "criu/images.h"
#include "store/manifest.h"
#include "store/metadata.h"
#include "store/store.h"

/* Bytes of the files of a checkpoint, by what they hold. */
struct inspect_sizes {
    uint64_t memory; /* page images */
    uint64_t images; /* CRIU's other images */
    uint64_t rootfs; /* changed files of the container */
    uint64_t shm;    /* /dev/shm */
    uint64_t other;  /* metadata and lists */
};

void inspect_add_sizes(const struct manifest *m, struct inspect_sizes *out);

/* The parts for people: what it is and where it was made; then sizes and timings.
 * path      of the checkpoint directory
 * manifest  NULL: a checkpoint without one */
void inspect_people(const struct metadata *m, const struct manifest *manifest, const char *path,
                    struct buf *out);
/* The same as members of a JSON object. */
void inspect_json(const struct metadata *m, const struct manifest *manifest, const char *path,
                  yyjson_mut_doc *doc, yyjson_mut_val *object);

/* What CRIU's images hold: processes, memory by kind, files, sockets, environment. */
void inspect_images_people(const struct cr_images *images, struct buf *out);
void inspect_images_json(const struct cr_images *images, yyjson_mut_doc *doc,
                         yyjson_mut_val *object);

/* Everything of a checkpoint, images included, as members of a JSON object.
 * errors  RC_CORRUPT (images that are none), RC_IO */
enum rc inspect_entry_json(struct store_entry *entry, yyjson_mut_doc *doc, yyjson_mut_val *object,
                           struct err *err);

/* How packed memory is stored: different pages, compression, packs, scatter; and the working set
 * beside it, NULL = none. */
void inspect_memory_people(const struct memory *m, const struct workingset *w, struct buf *out);
void inspect_memory_json(const struct memory *m, const struct workingset *w, yyjson_mut_doc *doc,
                         yyjson_mut_val *object);
