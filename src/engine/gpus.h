/* The GPU state of a tree: into the memory of its processes before CRIU saves them, and back after
 * CRIU has restored them.  The work is chrek-gpu's (gpu/helper.h).
 *
 * At a checkpoint: lock all, save all, then CRIU; by then a process holds no device any more, and
 * what was on the GPU is memory like any other.  Locking and saving are steps of their own, so that
 * whoever coordinates several trees can lock them all first.
 *
 * At a restore: after CRIU has let the processes run, not before.  The driver has a thread in each
 * process that carries the restore out, so the process must not be stopped, and a process that CRIU
 * holds can only be let go by CRIU itself.  The program does not get ahead of its GPU: the driver
 * holds every call until the process is unlocked.  All processes are restored at once.
 *
 * A tree without CUDA costs one look at each process's map, and needs neither helper nor driver.
 * Threads: an object belongs to one thread.
 */
#pragma once

#include "base/err.h"
#include "container/proc_tree.h"
#include "engine/engine.h"
#include "gpu/helper.h"

#include <stddef.h>
#include <stdint.h>

struct gpus {
    struct gpu_helper *helper; /* NULL: nothing here uses a GPU */
    struct gpu_facts facts;
    struct gpu_map map;
    size_t n;
    pid_t pid[GPU_PIDS_MAX];   /* as we see them */
    pid_t inner[GPU_PIDS_MAX]; /* as they see themselves */
    bool touched;              /* the driver holds them */
};

#define GPUS_LOCK_NS ((uint64_t)60 * 1000000000) /* that running work has to end in */

/* Find the processes of a tree whose state must be saved.  One that somebody else has checkpointed
 * with cuda-checkpoint stays as it is.
 * out     gpus_done()
 * errors  RC_UNSUPPORTED (no chrek-gpu, no driver or one that is too old, a process that the driver
 *         does not know: what to do), RC_CONFLICT (locked by somebody else), RC_TIMEOUT */
enum rc gpus_find(const struct proc_facts *tree, size_t n, struct gpus *out, struct err *err);

/* Hold them.  errors  the driver's; then all of them run */
enum rc gpus_lock(struct gpus *g, uint64_t deadline, struct err *err);
/* Bring what is on the GPU into their memory, and see that no device is left open.
 * errors  the driver's; RC_UNSUPPORTED (a device that is left: which); then all of them run */
enum rc gpus_save(struct gpus *g, uint64_t deadline, struct err *err);
/* Back to the GPU and on; for what still runs after its checkpoint. */
enum rc gpus_resume(struct gpus *g, uint64_t deadline, struct err *err);
/* The same as an undo: nothing to do if they run; what cannot be brought back is warned of. */
void gpus_release(struct gpus *g, const struct engine *e);

/* Say in the metadata what was saved where. */
void gpus_describe(const struct gpus *g, struct metadata *m);

/* Compare a checkpoint's GPUs with this machine's, and begin to initialise the driver.
 * errors  RC_UNSUPPORTED (what differs) */
enum rc gpus_accept(const struct metadata *m, struct gpus *out, struct err *err);
/* Restore what was recorded; the processes run, and are in the PID namespace of `neighbour`. */
enum rc gpus_restore(struct gpus *g, const struct metadata *m, pid_t neighbour, uint64_t deadline,
                     struct err *err);
enum rc gpus_unlock(struct gpus *g, uint64_t deadline, struct err *err);

void gpus_done(struct gpus *g);

/* The first device of a GPU that a process holds, for people ("'/dev/nvidiactl', descriptor 7"), or
 * NULL.  minors, n: of /dev/nvidia<minor>, added to at most `max`; may be NULL.  Returns the
 * caller's (free). */
char *gpus_device_of(pid_t pid, uint32_t *minors, size_t *n, size_t max);
