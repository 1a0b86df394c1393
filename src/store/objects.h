/* A store in object storage.
 *
 *   <id>.tar            a checkpoint: its files, but for packed memory (store/bundle.h)
 *   packs/xx/<name>     memory, shared by checkpoints (store/pack.h)
 *   workingset/<id>     what restores of a checkpoint have recorded (store/workingset.h)
 *   holds/…             who is making a checkpoint, or collecting packs (store/hold.h)
 *
 * One object is a checkpoint, so one put publishes it: whole, and in one step also in the place of
 * another.  Packs are written before and removed after (store/gc.h), so a bundle that is there
 * finds its packs.  Files on their way are in a private directory of the local disk (the spool);
 * memory streams to and from packs without touching a disk.
 *
 * Every byte is verified as in a directory: the bundle is unpacked into the spool, and what is
 * there goes the way of a local checkpoint.
 *
 * Threads: as store.h says.
 */
#pragma once

#include "store/store_priv.h"

/* The key of a checkpoint: the id, with every byte that no key can have, and the _ of "_x", as
 * _x<two hexadecimal digits>, and ".tar".
 * errors  RC_INVALID (no id, or too long for a key) */
enum rc objects_key(const char *id, char out[BACKEND_KEY_MAX + 1], struct err *err);
/* The id of a key, or NULL when it is no checkpoint's.  out: the caller's (free) */
char *objects_id(const char *key);

/* The key of what restores of a checkpoint record (store/workingset.h); NULL: its id is too long
 * for one.  The caller's (free). */
char *objects_record_key(const char *id);
/* The id of such a key, or NULL.  The caller's (free). */
char *objects_record_id(const char *key);

/* These are the functions of store.h without "remote". */
enum rc objects_find(struct store *s, const char *id, struct store_entry **out, struct err *err);
enum rc objects_identify(struct store *s, const char *id, enum identity *out, struct err *err);
enum rc objects_list(struct store *s, char ***out_ids, size_t *out_n, struct err *err);
enum rc objects_delete(struct store *s, const char *id, struct err *err);

/* Publish a staging directory. errors RC_EXISTS (a whole one is there and `replace` is false) */
enum rc objects_publish(struct store *s, const char *id, int dir, bool replace, struct err *err);

/* One file of a checkpoint, whatever state the others are in.
 * errors RC_NOT_FOUND (no such checkpoint or file), RC_CORRUPT, RC_TOO_BIG */
enum rc objects_read_file(struct store *s, const char *id, const char *name, size_t max,
                          struct buf *out, struct err *err);
