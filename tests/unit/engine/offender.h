/* Processes that do something which CRIU may not be able to save, and CRIU's own opinion of them.
 */
#pragma once

#include "engine/doctor.h"

#include <stdbool.h>
#include <sys/types.h>

/* Start a process of its own session, with nothing open but /dev/null, that runs `act` and then
 * waits to be killed (which happens at the latest when the test ends).  `act` may fail by returning
 * an errno, which is what this returns as a negative number. */
pid_t offender_start(int (*act)(void *arg), void *arg);

/* The same without a session of its own, if `act` wants to arrange that. */
pid_t offender_start_plain(int (*act)(void *arg), void *arg);

/* In `act`: become a process that only waits. */
_Noreturn void offender_wait(void);

/* In `act`: become another program that only waits, with its standard streams opened here. */
_Noreturn void offender_exec(void);

/* In `act`: fork a process that runs `act` (may be NULL) and waits, and dies with this one. */
pid_t offender_child(int (*act)(void *arg), void *arg);

void offender_end(pid_t pid);

/* Whether CRIU can be asked: not under a sanitizer, whose processes it cannot save. */
bool criu_is_here(void);

/* Let CRIU dump a process, as chrek would, and let it go on.
 * out     what CRIU said when it could not, at most `cap` bytes
 * returns whether it could */
bool criu_saves(const struct doctor_process *p, char *out, size_t cap);
