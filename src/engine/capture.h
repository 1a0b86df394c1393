/* Memory into a checkpoint while CRIU dumps: into packs, or into page images as CRIU makes them.
 *
 * CRIU moves memory page by page, in one thread, with the tree frozen.  So it is kept from most of
 * it, and at its post-dump notification, with the tree still frozen, we copy that ourselves, with
 * several threads and process_vm_readv(): into buffers, and packing begins when the tree runs
 * again, or at once when buffers are short; or into the page image that CRIU would have written,
 * with its digest (engine/page_image.h).  To packs, what CRIU has written as page images follows
 * when there is time.
 *
 * Or, where CRIU leaves keepers of the memory behind (criu/hidden.h), the pages are only listed at
 * that notification, and copied from the keepers when the tree goes on or is no more.
 *
 * How CRIU is kept from it, the first that can be had:
 *   hide    it does not see these pages at all (criu/hidden.h)
 *   lazy    it is told that they will be loaded lazily; it maps each page into a pipe, and would
 *           serve them over a socket afterwards, which we close
 *   images  not at all: it writes page images, which are packed like all others
 * For page images it is hidden, or CRIU writes them as ever (capture_can_write_images()).
 *
 * In the first of these most of it can be read before, while the tree runs (capture_ahead()).
 *
 * Threads: a capture belongs to one thread; it starts its own.
 */
#pragma once

#include "base/cancel.h"
#include "base/err.h"
#include "engine/engine.h"

#include <sys/types.h>

struct capture;

struct capture_options {
    struct store *store;
    const char *criu;           /* path of the program */
    struct store_staging *into; /* must outlive the capture */
    bool plain;                 /* page images, no packs */
    const char *name;           /* of the box, whose earlier checkpoints have most of it; or NULL */
    const char *parent;         /* the checkpoint that it was restored from, or NULL */
    bool outside;               /* CRIU is not in the tree's PID namespace */
    bool hold;                  /* the tree waits for the copying alone, not for the storing */
    bool keep; /* the tree is to leave its memory behind, copied when it writes it; where it could
                * not, its memory is copied frozen */
    uint64_t rss_bytes;    /* of the tree */
    uint64_t budget_bytes; /* of memory for copies; 0 = CAPTURE_BUDGET, or a quarter of what is free
                              if that is less */
    enum compress_codec codec;
};

#define CAPTURE_BUDGET ((uint64_t)256 << 20)

/* Whether there can be a capture for a plain checkpoint; else CRIU writes all of it. */
bool capture_can_write_images(const char *criu);

/* Get ready, before anything is frozen.  out: the caller's, capture_freep(). */
enum rc capture_open(const struct capture_options *o, struct capture **out, struct err *err);

/* How CRIU is to be started and asked, borrowed from the capture. */
struct capture_launch {
    int fds[2]; /* to pass */
    size_t n_fds;
    const char *env;         /* to add to CRIU's environment, or NULL */
    const char *config_file; /* as CRIU sees it, or NULL */
    bool lazy_pages;
};

/* first  index that fds[0] will have among the descriptors that CRIU is passed
 * errors RC_IO */
enum rc capture_launch(struct capture *c, size_t first, struct capture_launch *out,
                       struct err *err);

/* Bytes of memory copied so far. */
const uint64_t *capture_counter(const struct capture *c);

/* While the tree runs: read memory ahead, and have the kernel watch what is written
 * (engine/precopy.h).
 * errors  as precopy_run() */
enum rc capture_ahead(struct capture *c, pid_t root, uint64_t deadline, struct err *err);

/* All is frozen and CRIU begins to dump: look around beside it (engine/census.h).  May be left out.
 * in_namespace  some process of the tree's PID namespace */
void capture_frozen(struct capture *c, pid_t in_namespace);

/* At the post-dump notification: copy the memory of the frozen tree, or take over its keepers.
 * in_namespace  some process of its PID namespace
 * cancel        ends it early, or NULL
 * errors        RC_NOT_FOUND (a process is not there), RC_DENIED, RC_CANCELLED, RC_IO, or what
 *               storing met */
enum rc capture_copy(struct capture *c, pid_t in_namespace, const struct cancel *cancel,
                     struct err *err);

/* A dump has failed, and CRIU has ended: end the keepers that it has left behind. */
void capture_forget(struct capture *c, pid_t in_namespace);

/* The tree runs again, or is no more: nothing has to be watched. */
void capture_thawed(struct capture *c);

/* Copy from the keepers, store the rest, write MEMORY_NAME (unless plain) and the page maps into
 * the staging directory, and fill the metadata's memory. Packed: page images in the staging
 * directory are packed and removed.  The packs stay until capture_freep(), which must come after
 * the commit. */
enum rc capture_store(struct capture *c, struct metadata *meta, struct err *err);

void capture_freep(struct capture **p);
