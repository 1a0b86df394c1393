/* A store of checkpoints: a directory, or object storage (see objects.h for what is where there).
 *
 * A directory, also on a network file system or a mounted volume:
 *
 *   <base>/<id>/            a whole checkpoint: made elsewhere, renamed here, never changed
 *   <base>/<id>.tmp-<hex>/  one being made, or left by a crash; locked while its maker lives
 *
 * The directory may also be one in which somebody keeps other things: whatever is no checkpoint by
 * its content (identity.h) is not listed, not found, never replaced and never removed.
 *
 * A checkpoint is there when its directory has its final name and a checkpoint.done that says so;
 * everything else is nothing.  Any number of processes may use a store at the same time; there is
 * no lock but the one on a staging directory, which tells a sweep that its maker is alive, and the
 * holds on packs (hold.h).
 *
 * Threads: a store may be shared; an entry and a staging belong to one thread.  A store outlives
 * its entries, stagings and holds.
 */
#pragma once

#include "backend/url.h"
#include "base/cancel.h"
#include "base/err.h"
#include "store/hold.h"
#include "store/manifest.h"
#include "store/metadata.h"
#include "store/page_reader.h"
#include "store/vault.h"
#include "store/workingset.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct store;
struct store_staging;
struct store_entry;

/* Open a store, making its directory (0700) if it is not there.
 * url     a path, file://PATH, or object storage: object://PATH (a directory used like it), and
 *         what backend/url.h knows
 * out     the caller's, store_freep()
 * errors  RC_DENIED, RC_INVALID (no directory), RC_UNSUPPORTED (URL), RC_NO_SPACE, RC_IO */
enum rc store_open(const char *url, struct store **out, struct err *err);
/* The directory that a URL leads to, part of it; NULL: it leads to another machine. */
const char *store_directory(const char *url);
struct store_options {
    const char
        *tmp; /* for the files of remote checkpoints on their way (spool.h); NULL = default */
    const char *cache;    /* directory for a cache in front of object storage (backend/cache.h) */
    uint64_t cache_bytes; /* of it at most */
    struct backend_options backend;
};
/* The same with options; NULL are the defaults. */
enum rc store_open_with(const char *url, const struct store_options *options, struct store **out,
                        struct err *err);
/* A store of the objects of a backend.
 * b     kept, also on failure
 * path  what store_path() says */
enum rc store_open_backend(struct backend *b, const char *path, const char *tmp, struct store **out,
                           struct err *err);
void store_freep(struct store **p);
/* The path that it was opened with, made absolute, or the URL without a slash at its end. */
const char *store_path(const struct store *s);
bool store_is_remote(const struct store *s);
/* Where a checkpoint of this id is or would be: its directory's path or its object's URL; the
 * caller's (free).  NULL when the store cannot have such an id. */
char *store_location(const struct store *s, const char *id);

/* What to bring along: from now on new checkpoints are encrypted and signed with it, and what is
 * found is opened with its keys and refused unless somebody signed it whom it trusts.
 * v  must outlive the store; NULL = nothing */
void store_use_vault(struct store *s, const struct vault *v);
/* Let new checkpoints be in the clear although others of this store are encrypted: without this,
 * forgetting the key is an error instead of a program's secrets on a disk. */
void store_allow_clear(struct store *s);
/* Whether there are encrypted checkpoints, or were: the store has a data key.  errors RC_IO, … */
enum rc store_is_encrypted(const struct store *s, bool *out, struct err *err);
/* Where the packs of this store are, borrowed. */
struct backend *store_backend(const struct store *s);

/* ---- making a checkpoint ---- */

/* Begin a checkpoint; sweeps what crashed makers have left.
 * keep    fail at once when a whole checkpoint of this id is there
 * out     the caller's: ends with store_commit() or store_abortp()
 * errors  RC_INVALID (id, or something else has this name), RC_EXISTS, RC_NO_SPACE, RC_DENIED
 * (also: no key, and the store has encrypted ones), RC_IO; of keys as keyring_current() */
enum rc store_begin(struct store *s, const char *id, bool keep, struct store_staging **out,
                    struct err *err);
/* The directory to put files into, borrowed: the staging directory, or when the checkpoint will be
 * encrypted one in memory, so that nothing reaches a disk in the clear. */
int store_staging_fd(const struct store_staging *g);
/* How its memory is to be packed: the domain to encrypt for, or NULL; and whether it must not refer
 * to what is in the store, because others could have written that and its signature would vouch for
 * it. */
const struct domain *store_staging_domain(const struct store_staging *g);
bool store_staging_is_alone(const struct store_staging *g);

/* Hash this file while CRIU still writes it; it need not exist yet.  Several names may be followed.
 */
void store_staging_follow(struct store_staging *g);

/* CRIU writes no more: follow no other files. */
void store_staging_settled(struct store_staging *g);
/* The digest of a file, from who has written it: it is not read once more. */
void store_staging_digest(struct store_staging *g, const char *name, uint64_t len,
                          const struct digest *d);

/* Publish only in the place of this checkpoint, while it is there: else RC_CONFLICT.
 * e  borrowed until the end; after the publishing its files may go */
void store_staging_instead(struct store_staging *g, const struct store_entry *e);

/* Publish: digests, manifest, metadata, marker, sync, one rename.  total_bytes, sync_ns and
 * checkpoint_id of the metadata are set here. durable  on RC_OK the whole checkpoint is on disk
 * errors   RC_EXISTS (somebody else was first, and `replace` is false: theirs stays),
 *          RC_INVALID (what has this name now is no checkpoint, and stays), RC_NO_SPACE, RC_IO;
 * then nothing has appeared and *g is as before */
enum rc store_commit(struct store_staging *g, struct metadata *m, bool replace, struct err *err);
/* Publish what was copied from elsewhere as it is, manifest included; only the marker is written
 * anew.  durable, errors: as for store_commit() */
enum rc store_commit_copy(struct store_staging *g, bool replace, struct err *err);
/* End: removes the staging directory if it was not published.  NULL is fine. */
void store_abortp(struct store_staging **p);

/* Remove staging directories whose makers are dead.  Returns how many it has left since they are
 * younger than STORE_YOUNG_S: their makers may not have locked them yet. */
size_t store_sweep(struct store *s);
#define STORE_YOUNG_S 10

/* ---- using one ---- */

/* Find a checkpoint and look at everything but its bytes: signature (before anything else is read),
 * marker, manifest, metadata, format, and that every file is there with its size
 * (of a remote one when they are fetched).  One that is
 * encrypted is found also when it cannot be opened: see store_entry_unlocked().  While the entry
 * lives, nobody who goes by the rules removes its files: one that is deleted or replaced meanwhile
 * disappears only afterwards. out     the caller's, store_entry_freep() errors  RC_NOT_FOUND (no
 * such id), RC_INVALID (id; or the attempt had failed), RC_CORRUPT (not whole; damaged; its
 * manifest is another checkpoint's or another making's), RC_DENIED (unsigned, or by somebody who is
 * not trusted), RC_UNSUPPORTED (newer format) */
enum rc store_find(struct store *s, const char *id, struct store_entry **out, struct err *err);
/* The same for a directory that is no part of a store.
 * dirfd  kept
 * v      as for store_use_vault(); must outlive the entry */
enum rc store_adopt(int dirfd, const char *path, const struct vault *v, struct store_entry **out,
                    struct err *err);
/* The same without a marker, and under whatever name: for a checkpoint that is baked into an image.
 */
enum rc store_adopt_unmarked(int dirfd, const char *path, const struct vault *v,
                             struct store_entry **out, struct err *err);
void store_entry_freep(struct store_entry **p);

const char *store_entry_id(const struct store_entry *e);
const char *store_entry_path(const struct store_entry *e);
int store_entry_fd(const struct store_entry *e);
/* See to it that all files are in the directory, with the sizes that the manifest says: downloads
 * those of a remote checkpoint, of which only the documents may be there before.  What takes an
 * entry and reads files does it by itself.
 * errors  RC_CORRUPT, RC_NOT_FOUND (deleted meanwhile), RC_NO_SPACE, RC_UNAVAILABLE, RC_IO */
enum rc store_entry_fetch(const struct store_entry *e, struct err *err);
/* The domain that its packs are of, borrowed; NULL: none, or it is not open. */
const struct domain *store_entry_domain(const struct store_entry *e);
/* Of an encrypted checkpoint that is not open only what anybody may know. */
const struct metadata *store_entry_metadata(const struct store_entry *e);
/* Whether its content can be read.
 * errors  of an encrypted one: RC_DENIED (no key, wrong key), RC_UNAVAILABLE or RC_TIMEOUT (the key
 *         service) */
enum rc store_entry_unlocked(const struct store_entry *e, struct err *err);
/* Only what somebody trusted has signed may be used: not what was added beside the checkpoint. */
bool store_entry_must_be_signed(const struct store_entry *e);
/* NULL when the checkpoint has none (made by the reference implementation). */
const struct manifest *store_entry_manifest(const struct store_entry *e);

/* The memory of a checkpoint in packed format: opens its packs, once.  Borrowed from the entry.
 * out     NULL when the checkpoint is plain, with its page images among its files
 * errors  RC_CORRUPT (memory map or packs), RC_UNSUPPORTED, RC_UNAVAILABLE, RC_IO */
enum rc store_entry_pages(struct store_entry *e, const struct page_reader **out, struct err *err);

/* Where restores record what the program of a checkpoint touches first (workingset.h).
 * out     the caller's, workingset_place_done()
 * errors  RC_NOT_FOUND (of memory that is not packed, or that is encrypted, there is no record),
 *         RC_DENIED (only what is signed may be used, and a record is signed by nobody), RC_IO */
enum rc store_entry_record(const struct store_entry *e, struct workingset_place *out,
                           struct err *err);
/* What earlier restores have recorded there.
 * out     the caller's, workingset_done()
 * errors  those of store_entry_record() and workingset_open() */
enum rc store_entry_workingset(const struct store_entry *e, struct workingset *out,
                               struct err *err);

/* Files of the checkpoint, verified, to be read by others: in the checkpoint's directory, or where
 * it is encrypted or a signature is required copies in memory that nobody else can change. pattern
 * of names, as for fnmatch(); only what it matches may be read out      borrowed from the entry;
 * more may be revealed later errors   RC_CORRUPT, RC_DENIED (encrypted, and not open), RC_NO_SPACE,
 * RC_IO */
enum rc store_entry_reveal(struct store_entry *e, const char *pattern, int *out_dirfd,
                           struct err *err);

/* Look again whether every file is still there with its size.  errors RC_CORRUPT */
enum rc store_entry_recheck(const struct store_entry *e, struct err *err);

/* Copy a file of the checkpoint into a directory of ours and compare the copy with the manifest, so
 * that what is used is what was verified.
 * errors  RC_NOT_FOUND (the manifest has no such file), RC_CORRUPT, RC_NO_SPACE, RC_IO */
enum rc store_entry_copy(const struct store_entry *e, const char *name, int dirfd, struct err *err);

/* What is verified from now on is given up with RC_CANCELLED once `c` is asked; borrowed, NULL
 * again when it goes. */
void store_entry_cancel(struct store_entry *e, const struct cancel *c);

/* Compare bytes with the manifest: all of them (and with STORE_ALL the chunks in packs), or only
 * page images (STORE_BIG) or all but these (STORE_SMALL): they alone may be looked at while CRIU
 * works, since what they hold is seen by nobody before the tree runs.
 * threads  for files; what is in packs is read as store/page_scan.h says
 * done     counted up atomically by the bytes read; may be NULL
 * errors   RC_CORRUPT (which file), RC_UNSUPPORTED (no digests),
 * RC_IO */
enum store_which { STORE_ALL, STORE_SMALL, STORE_BIG };
enum rc store_verify(const struct store_entry *e, enum store_which which, unsigned threads,
                     uint64_t *done, struct err *err);

/* Ids of everything in the store that is a checkpoint, whole or not, sorted.  In object storage
 * they are taken from names alone, so that store_find() may say RC_NOT_FOUND of one.
 * out_ids  NULL-terminated; the caller's, store_free_ids() */
enum rc store_list(struct store *s, char ***out_ids, struct err *err);
void store_free_ids(char **ids);

/* One file of a checkpoint as it is stored, in whatever state the rest of it is.
 * errors  RC_NOT_FOUND (no such checkpoint, or file), RC_TOO_BIG */
enum rc store_read_file(struct store *s, const char *id, const char *name, size_t max,
                        struct buf *out, struct err *err);

/* Remove a checkpoint: it is gone for others at once, and from the disk before this returns, or if
 * somebody is reading it, with a later sweep.  What its memory shares with others is store_gc()'s.
 * errors RC_NOT_FOUND (also: something else has this name), RC_INVALID, RC_DENIED, RC_IO */
enum rc store_delete(struct store *s, const char *id, struct err *err);
