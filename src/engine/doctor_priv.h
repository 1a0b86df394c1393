/* Shared by the files of the doctor. */
#pragma once

#include "container/fdinfo.h"
#include "container/mounts.h"
#include "container/ns.h"
#include "container/sockets.h"
#include "container/task.h"
#include "engine/doctor.h"

/* The way round, for a ring that is open or mapped. */
#define DOCTOR_NO_IO_URING                                                                         \
    "Start it with `chrek run --no-io-uring`, in a container with a seccomp profile that refuses " \
    "io_uring, or after sysctl kernel.io_uring_disabled=2."

/* Add a finding, or count it when this process has one of that id already.
 * why, remedy  borrowed, copied; `why` NULL for DOCTOR_OK, `remedy` may be NULL */
void doctor_add(struct doctor_report *r, enum doctor_level level, const char *id, pid_t pid,
                const char *why, const char *remedy, const char *what, ...) PRINTF_LIKE(7, 8);

/* Say "(and 3 more)" where findings were counted. */
void doctor_finish(struct doctor_report *r, size_t from);

/* What is known of ourselves. */
struct doctor_self {
    struct task_status status;
    struct ns_set ns;
    bool initial_userns; /* as far as can be told */
};

enum rc doctor_self_read(struct doctor_self *out, struct err *err);
/* Whether our effective set has a capability, e.g. CAP_SYS_PTRACE. */
bool doctor_has_cap(const struct doctor_self *self, int cap);

/* Everything that the checks of one process need; all borrowed. */
struct doctor_case {
    const struct doctor_process *request;
    const struct doctor_self *self;
    struct doctor_report *report;
    const struct task_stat *tree; /* root first */
    size_t n_tree;
    const struct ns_set *root_ns;
    uint64_t ghost_limit;

    int task; /* the process that is looked at */
    const struct task_stat *stat;
    const struct task_status *status;
    const struct ns_set *ns;
    bool cuda;    /* it uses CUDA, whose state the GPU's driver saves */
    char who[96]; /* "process 4711 (node)" */
};

/* Whether the process is another user's, and we are nobody who may look at those. */
bool doctor_is_forbidden(const struct doctor_case *c);

bool doctor_in_tree(const struct doctor_case *c, pid_t pid);

/* What the whole tree has; judged is one process only after all have been looked at. */
struct doctor_ids {
    uint64_t *list; /* ascending */
    size_t n;
};
bool doctor_has_id(const struct doctor_ids *ids, uint64_t id);

struct doctor_tree_facts {
    struct doctor_ids sockets; /* inodes */
    struct doctor_ids mounts;  /* of all mount namespaces; empty if not known */
    struct doctor_ids pipes;   /* inodes of those that somebody may read from */
    struct doctor_ids fifos;   /* the same of those with a name */
};

void doctor_check_task(const struct doctor_case *c);   /* state, rights, namespaces */
void doctor_check_memory(const struct doctor_case *c); /* mapped areas */
void doctor_check_files(const struct doctor_case *c, const struct fdinfo_list *fds,
                        const struct doctor_tree_facts *facts);

/* What CRIU has room for, of a whole tree. */
void doctor_check_amount(const struct doctor_case *c, const struct doctor_tree_facts *facts);

bool doctor_machine_has_gpu(void);
/* Ask chrek-gpu what driver and GPUs can do; by the deadline, monotonic ns. */
void doctor_check_gpu(struct doctor_report *r, uint64_t deadline);
