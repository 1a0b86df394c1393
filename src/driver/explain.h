/* Why the driver refuses, and what a user can change.  The driver says little more than "not
 * supported"; what is known of the process and the machine says which of its limits was met.
 * Threads: safe. */
#pragma once

#include "base/buf.h"
#include "gpu/message.h"

#include <stdbool.h>

struct evidence {
    bool nccl;       /* NCCL is loaded */
    bool mps;        /* it is a client of MPS */
    bool mig;        /* a GPU is cut into instances */
    bool vgpu;       /* the GPU is a virtual machine's share */
    unsigned driver; /* major number, 0 = not known */
    char comm[17];
};

/* What /proc says of a process; a process that has gone leaves no evidence. */
void evidence_read(pid_t pid, const struct gpu_facts *facts, struct evidence *out);

/* One line: what failed with which of the driver's errors, why probably, and the remedy.
 * name  the driver's name of the code */
void explain(enum gpu_verb verb, int code, const char *name, const struct evidence *e,
             struct buf *out);
