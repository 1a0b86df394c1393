/* Which processes and pages there are, found out while CRIU dumps.
 *
 * CRIU has one thread, and takes its time for each page, in reading smaps alone.  The tree stands
 * still all the while, so what we need to know for our own part of the work can be looked up beside
 * it: the processes of its PID namespace, and the pages of the memory that CRIU will leave to us.
 * What CRIU does to a process meanwhile, in memory of its own that it adds and takes away again, is
 * in none of the mappings that are looked at.
 *
 * Threads: an object belongs to one thread; it starts its own, which has `precopy` to itself from
 * census_begin() until any of the other functions has returned.
 */
#pragma once

#include "base/err.h"
#include "container/proc_tree.h"
#include "engine/precopy.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct census;

/* Begin, with the tree frozen.
 * neighbour  some process of its PID namespace
 * precopy    what was read ahead and is to be confirmed, or NULL; must outlive the object
 * out        the caller's, census_endp() */
struct census *census_begin(pid_t neighbour, struct precopy *precopy);

/* The processes of the namespace.
 * out     borrowed
 * errors  as proc_in_namespace() */
enum rc census_tasks(struct census *c, const struct proc_facts **out, size_t *out_n,
                     struct err *err);

/* List pages as pages_scan() or precopy_scan() do: from what was found, and where that does not
 * reach, by looking now.
 * pagemap  of the process (pages_open())
 * errors   as theirs */
enum rc census_scan(struct census *c, pid_t pid, int pagemap, uint64_t start, uint64_t end,
                    pages_visit *visit, void *arg, struct err *err);

void census_endp(struct census **c);
