/* Inside store/: what store.c, staging.c, entry.c and objects.c share. */
#pragma once

#include "store/hold.h"
#include "store/identity.h"
#include "store/spool.h"
#include "store/store.h"

/* Remove a directory that has got a staging name, unless somebody has it open as an entry: then a
 * sweep will. */
enum rc store_remove_unused(struct store *s, const char *name, struct err *err);

/* Whoever exchanges or removes a checkpoint of a directory takes his turn, together with others or
 * alone: who is alone finds after a look what was there at the look.
 * alone   fails where there are no locks; the others go on without
 * out_fd  the caller's, to be closed when it is over
 * errors  RC_IO, … (only alone) */
enum rc store_take_turn(const struct store *s, bool alone, int *out_fd, struct err *err);

/* What an id stands for; see identity_of(). */
enum rc store_identify(struct store *s, const char *id, enum identity *out, struct err *err);
/* RC_NOT_FOUND, with what is there instead of a checkpoint. */
enum rc store_say_absent(const struct store *s, const char *id, enum identity there,
                         struct err *err);
/* RC_INVALID: a checkpoint cannot be made where something else is. */
enum rc store_say_foreign(const struct store *s, const char *id, struct err *err);

struct store {
    int dir;    /* of the checkpoints; remote: the spool */
    char *path; /* absolute, or an URL */
    struct backend *backend;
    const struct vault *vault; /* NULL: nothing was brought along */
    bool clear_allowed;        /* see store_allow_clear() */

    bool remote;             /* checkpoints are objects of the backend, see objects.h */
    struct spool spool;      /* for what is on its way */
    struct store_hold *hold; /* the last shared one, borrowed */
};

#define STORE_PACKS "packs"

/* How an entry gets at what is not in its directory. */
struct store_source {
    struct backend *packs; /* borrowed */
    const char *record;    /* key of what restores record; NULL: it lies beside the directory */
    /* Bring all files into the directory; called once. */
    enum rc (*fetch)(struct store_source *s, int dir, struct err *err);
    void (*free)(struct store_source *s);
    bool complete; /* all files are in the directory */
};

/* An entry in a directory of ours that holds its documents, or with a complete source all its
 * files.  dirfd, source: kept, also on failure; v: as for store_adopt() */
enum rc store_adopt_from(int dirfd, const char *id, const char *path, struct store_source *source,
                         const struct vault *v, struct store_entry **out, struct err *err);
