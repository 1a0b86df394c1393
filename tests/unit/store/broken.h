/* A storage whose calls fail when they are told to.  Threads: as the storage behind it. */
#pragma once

#include "backend/backend.h"

enum broken_call {
    BROKEN_BEGIN,
    BROKEN_APPEND,
    BROKEN_COMMIT,
    BROKEN_OPEN,
    BROKEN_READ,
    BROKEN_LIST,
    BROKEN_REMOVE,
    BROKEN_CALLS_,
};

/* The same storage with failures.  inner: borrowed.  The caller's, backend_freep(). */
struct backend *broken_open(struct backend *inner);
/* The n-th call of this kind from now (0-based), and every later one, says RC_NO_SPACE "is full";
 * other kinds work. */
void broken_arm(struct backend *b, enum broken_call call, unsigned n);
void broken_disarm(struct backend *b);
/* Calls of this kind since the last arm or disarm. */
unsigned broken_calls(struct backend *b, enum broken_call call);
