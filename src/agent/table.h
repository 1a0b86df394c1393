/* The pods that the agent watches: one thread keeps them up to date, another works on them.
 *
 * What is known of a pod beyond what the server says (when to try again, that a container is done
 * with) stays with its uid.  Threads: safe; a pod that was taken does not change, and stays until
 * it is given back.
 */
#pragma once

#include "kube/pod.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct table;

struct table *table_new(void);
void table_freep(struct table **t);

/* A list begins: what table_put() is not called for until table_end_list() has gone. */
void table_begin_list(struct table *t);
void table_end_list(struct table *t);

/* pod  moved into the table */
void table_put(struct table *t, struct kube_pod *pod);
void table_remove(struct table *t, const char *uid);

/* Pods that are there, and those of them that table_take() would give some time. */
void table_count(struct table *t, const char *node, size_t *out_pods, size_t *out_waiting);

/* The next pod that asks for a checkpoint and is due; NULL when there is none, after having waited
 * for one until `deadline` (clock_now()) or table_wake(). */
const struct kube_pod *table_take(struct table *t, const char *node, uint64_t deadline);

/* done     with this container of it: the bare ID; NULL: look at it again at `due` */
void table_give(struct table *t, const struct kube_pod *pod, const char *done, uint64_t due);

/* Let table_take() return. */
void table_wake(struct table *t);
