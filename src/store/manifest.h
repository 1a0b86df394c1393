/* manifest: every file of a checkpoint with its size and digest, as JSON.
 *
 *   {"format": 1, "files": [{"name": "pages-1.img", "size": 4096, "digest": "blake3:…"}, …]}
 *
 * Format 2 is that of signed and of encrypted checkpoints.  It says whose manifest it is, so that
 * it cannot be put in another's place, and of an encrypted one what must be known without its key:
 *
 *   {"format": 2, "id": "web", "instance": "<32 digits>", "key": "<32 digits>",
 *    "packs": ["<32 digits>", …], "files": …}
 *
 * Not listed: the manifest itself, its signature, checkpoint.done, and logs that CRIU may still be
 * writing.
 * Threads: a manifest belongs to one thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/digest.h"
#include "codec/keyfile.h"
#include "store/memory.h"
#include "store/seal.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MANIFEST_NAME "manifest"
#define MANIFEST_SIGNATURE "manifest.sig"
#define MANIFEST_MAX ((size_t)64 << 20)

struct manifest_file {
    char *name; /* plain file name */
    uint64_t size;
    struct digest digest;
};

typedef char manifest_pack[MEMORY_PACK_NAME_LEN + 1];

struct manifest {
    struct manifest_file *files;
    size_t n;

    char *id; /* of the checkpoint; NULL: format 1, nothing of what follows */
    uint8_t instance[SEAL_INSTANCE]; /* of this making of it */
    bool sealed;                     /* encrypted */
    struct key_id key;               /* with this data key */
    manifest_pack *packs;            /* where its memory lies, for store/gc.h */
    size_t n_packs;
};

/* Add a file; the name is copied. */
void manifest_add(struct manifest *m, const char *name, uint64_t size, const struct digest *d);
const struct manifest_file *manifest_find(const struct manifest *m, const char *name);
/* Whether a file of a checkpoint directory belongs into its manifest. */
bool manifest_wants(const char *name);

void manifest_format(const struct manifest *m, struct buf *out);
/* out: the caller's, manifest_done().  errors RC_CORRUPT, RC_UNSUPPORTED (newer format) */
enum rc manifest_parse(const char *text, size_t len, struct manifest *out, struct err *err);
void manifest_done(struct manifest *m);
