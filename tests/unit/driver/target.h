/* A process that uses CUDA, by the fake driver. */
#pragma once

#include <sys/types.h>

/* Start one with `words` on its GPU.  env: "NAME=VALUE" for it alone, or NULL. */
pid_t target_start(unsigned words, const char *env);
/* Let it compute a step; what it then has on the GPU, as one number.  0: it does not answer within
 * a moment, for instance because it is locked. */
unsigned target_step(pid_t pid);
/* The same, waiting for as long as it takes. */
unsigned target_step_wait(pid_t pid);
/* End it. */
void target_end(pid_t pid);
