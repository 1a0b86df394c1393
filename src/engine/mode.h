/* How the memory of a restored program is brought in.
 *
 *   full        all of it before the program runs.  Nothing can go wrong afterwards; the only mode
 *               for plain checkpoints, and where userfaultfd cannot be had.
 *   workingset  the program runs at once; what earlier lives touched first is brought in first,
 *               then the rest.  Without a record yet, as lazy.
 *   lazy        the program runs at once; what it touches comes first, then the rest.
 *   criu        of a plain checkpoint: all of it before the program runs, read by CRIU itself, in
 *               one thread.  To compare with, and in case our own way should fail.
 *
 * The default is workingset if there is a record, else full: a program that is used for the first
 * time is best brought in whole, since each page that it waits for costs more than a page brought
 * in with its neighbours, and only a record tells which few pages it needs.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"

enum engine_mode { ENGINE_DEFAULT, ENGINE_FULL, ENGINE_WORKINGSET, ENGINE_LAZY, ENGINE_CRIU };

/* "full", "workingset", "lazy", "criu"; NULL is the default.  errors RC_INVALID */
enum rc mode_parse(const char *text, enum engine_mode *out, struct err *err);
const char *mode_name(enum engine_mode mode);
