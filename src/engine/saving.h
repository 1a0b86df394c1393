/* Who is saving which process: two checkpoints of one at once stand in each other's way.
 *
 * A lock of the kernel's on a file in SAVING_DIR that is named after the process, so that it is
 * released by its holder's end, however that comes.  Threads: an object belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "container/proc_tree.h"

#define SAVING_DIR "/run/chrek/saving"

struct saving;

/* Claim a process.
 * out     the caller's, saving_endp(); NULL where there can be no such lock, as for who may not
 *         write there
 * errors  RC_CONFLICT: who is saving it */
enum rc saving_begin(const struct proc_facts *process, struct saving **out, struct err *err);

/* NULL is fine. */
void saving_endp(struct saving **p);
