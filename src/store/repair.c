#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "store/pack_check.h"
#include "store/scrub.h"
#include "store/store_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- files ---- */

/* Whether every file of a checkpoint is as it was written. */
static bool files_are_whole(struct store *s, const char *id, struct store_entry **out)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    if (store_find(s, id, &e, NULL) != RC_OK || !store_entry_manifest(e) ||
        store_verify(e, STORE_SMALL, 1, NULL, NULL) != RC_OK ||
        store_verify(e, STORE_BIG, 1, NULL, NULL) != RC_OK)
        return false;
    *out = STEAL(e);
    return true;
}

static enum rc read_manifest(int dir, const char *path, struct buf *text, struct manifest *out,
                             struct err *err)
{
    enum rc rc = fs_read_file(dir, path, MANIFEST_MAX, text, err);
    return rc ? rc : manifest_parse(buf_str(text), text->len, out, err);
}

/* Two checkpoints of one id are the same one when their manifests are; what cannot be read of ours
 * contradicts nothing. */
static enum rc check_same(const struct store *s, const char *id, const struct buf *theirs,
                          struct err *err)
{
    CLEANUP(buf_done) struct buf ours = {.max = MANIFEST_MAX};
    CLEANUP(manifest_done) struct manifest m = {0};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" MANIFEST_NAME, id);
    if (read_manifest(s->dir, path, &ours, &m, NULL) != RC_OK)
        return RC_OK;
    if (ours.len != theirs->len || memcmp(ours.data, theirs->data, ours.len) != 0)
        return err_set(err, RC_CONFLICT,
                       "the other store's '%s' is another checkpoint; --from a store that has a "
                       "copy of this one",
                       id);
    return RC_OK;
}

/* A file as it lies there, encrypted or not.  f: what it should be; NULL: nobody has said */
static enum rc copy_file(int from_dir, int to_dir, const char *name, const struct manifest_file *f,
                         struct err *err)
{
    struct digest d;
    uint64_t len = 0;
    CLEANUP(mem_freep) char *piece = mem_alloc(MEMORY_CHUNK);
    CLEANUP(fd_closep) int from = sys_openat(from_dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (from < 0)
        return err_sys(err, "open '%s'", name);
    CLEANUP(fd_closep) int to = sys_openat(to_dir, name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (to < 0)
        return err_sys(err, "make a copy of '%s'", name);
    enum rc rc = RC_OK;
    for (size_t n = MEMORY_CHUNK; !rc && n == MEMORY_CHUNK;) {
        rc = sys_read_full(from, piece, MEMORY_CHUNK, &n, err);
        if (!rc)
            rc = sys_write_all(to, piece, n, err);
    }
    if (!rc)
        rc = digest_file(to, 1, NULL, &len, &d, err);
    if (!rc && f && (len != f->size || !digest_equal(&d, &f->digest)))
        rc = err_set(err, RC_CORRUPT, "'%s' of the other store is damaged", name);
    return rc;
}

static enum rc copy_files(int from, int to, const struct manifest *m, struct repair *out,
                          struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < m->n; i++) {
        rc = copy_file(from, to, m->files[i].name, &m->files[i], err);
        out->bytes += rc ? 0 : m->files[i].size;
    }
    if (!rc)
        rc = copy_file(from, to, MANIFEST_NAME, NULL, err);
    if (!rc && faccessat(from, MANIFEST_SIGNATURE, F_OK, AT_SYMLINK_NOFOLLOW) == 0)
        rc = copy_file(from, to, MANIFEST_SIGNATURE, NULL, err);
    out->files += rc ? 0 : m->n;
    return rc;
}

static enum rc bring_files(struct store *s, const struct store_entry *theirs, const char *id,
                           struct repair *out, struct err *err)
{
    struct store bare = *s; /* what is copied is encrypted and signed as it is */
    CLEANUP(buf_done) struct buf text = {.max = MANIFEST_MAX};
    CLEANUP(manifest_done) struct manifest m = {0};
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    bare.vault = NULL;
    bare.clear_allowed = true;
    enum rc rc = read_manifest(store_entry_fd(theirs), MANIFEST_NAME, &text, &m, err);
    if (!rc)
        rc = check_same(s, id, &text, err);
    if (!rc)
        rc = store_begin(&bare, id, false, &g, err);
    if (!rc)
        rc = copy_files(store_entry_fd(theirs), store_staging_fd(g), &m, out, err);
    return rc ? rc : store_commit_copy(g, true, err);
}

/* ---- packs ---- */

/* Whether the pack is there with every chunk that the map needs of it, and with a good index. */
static bool pack_is_whole(struct backend *b, const struct memory *m, uint32_t pack)
{
    CLEANUP(pack_index_done) struct pack_index x = {0};
    if (pack_check(b, m->packs[pack].name, NULL, &x, NULL) != RC_OK)
        return false;
    for (size_t i = 0; i < m->n_chunks; i++)
        if (m->chunks[i].pack == pack && !pack_has(&x, &m->chunks[i]))
            return false;
    return true;
}

static enum rc bring_packs(struct store *s, struct store *from, const struct memory *m,
                           struct repair *out, struct err *err)
{
    for (uint32_t i = 0; i < m->n_packs; i++) {
        if (pack_is_whole(store_backend(s), m, i))
            continue;
        enum rc rc = pack_bring(store_backend(from), store_backend(s), m, i, &out->bytes, err);
        if (rc == RC_NOT_FOUND)
            return err_set(err, rc,
                           "pack '%s' is whole in neither store; "
                           "--from another store, or `chrek delete ID` and make a new checkpoint",
                           m->packs[i].name);
        if (rc)
            return rc;
        out->packs++;
    }
    return RC_OK;
}

/* The memory of an encrypted checkpoint can only be looked at. */
static enum rc check_sealed(struct store_entry *e, struct err *err)
{
    if (store_entry_unlocked(e, NULL) != RC_OK ||
        store_verify(e, STORE_ALL, 1, NULL, NULL) == RC_OK)
        return RC_OK;
    return err_set(
        err, RC_UNSUPPORTED,
        "its memory is encrypted; copy 'packs' of the other store over that of this one");
}

static enum rc load_map(const struct store_entry *e, struct memory *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    enum rc rc = fs_read_file(store_entry_fd(e), MEMORY_NAME, MEMORY_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* a plain one */
    return rc ? rc : memory_parse(text.data, text.len, out, err);
}

enum rc store_repair(struct store *s, struct store *from, const char *id, struct repair *out,
                     struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *ours = NULL;
    CLEANUP(store_entry_freep) struct store_entry *theirs = NULL;
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    struct repair r = {0};
    if (s->remote)
        return err_set(err, RC_UNSUPPORTED,
                       "repair '%s': %s is object storage; delete it there and copy it again", id,
                       s->path);
    /* Nothing is collected between a pack's return and that of who refers to it. */
    enum rc rc = store_hold_packs(s, false, &hold, err);
    if (!rc && !files_are_whole(s, id, &ours)) {
        rc = store_find(from, id, &theirs, err);
        if (!rc)
            rc = store_entry_fetch(theirs, err);
        if (!rc && !store_entry_manifest(theirs))
            rc = err_set(err, RC_UNSUPPORTED, "the other store's '%s' has no digests", id);
        if (!rc)
            rc = bring_files(s, theirs, id, &r, err);
        if (!rc)
            rc = store_find(s, id, &ours, err);
    }
    if (!rc && store_entry_metadata(ours)->key)
        rc = check_sealed(ours, err);
    else if (!rc)
        rc = load_map(ours, &m, err);
    if (!rc)
        rc = bring_packs(s, from, &m, &r, err);
    if (rc)
        return err_ctx(err, rc, "repair '%s'", id);
    *out = r;
    return RC_OK;
}
