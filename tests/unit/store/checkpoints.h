/* Whole packed checkpoints of sample pages in a store beneath test_dir().  Threads: the test's. */
#pragma once

#include "store/store.h"

/* A store in test_dir(); the caller's. */
struct store *checkpoints_open(void);
/* A store in a folder of test_dir(); the caller's. */
struct store *checkpoints_open_in(const char *folder);

/* A checkpoint of sample pages first..first+n-1, each one twice, and as many zeros, with an image
 * beside them; replaces one that is there.  Of box "box-<id>". */
enum rc checkpoint_make(struct store *s, const char *id, uint64_t first, unsigned n,
                        struct err *err);
/* Find it, verify all of it, and compare its pages.  errors RC_CONFLICT (other pages) */
enum rc checkpoint_check(struct store *s, const char *id, uint64_t first, unsigned n,
                         struct err *err);
