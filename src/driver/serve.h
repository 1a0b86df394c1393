/* The conversation of chrek-gpu with its parent: request by request until the socket's end.
 *
 * The driver is initialised, which takes seconds, by a thread from the first moment on; a request
 * that needs it waits for that.  Threads: the program's main thread only.
 */
#pragma once

#include "base/err.h"
#include "driver/cuda.h"
#include "gpu/message.h"

/* A driver that is being initialised. */
struct driver;

/* Begin.  The environment loses CUDA_VISIBLE_DEVICES.  Returns: the caller's, driver_freep() */
struct driver *driver_start(void);
void driver_freep(struct driver **p);

/* Carry out one request; never fails, the answer says what failed. */
void driver_answer(struct driver *d, const struct gpu_request *request, struct gpu_reply *out);

/* Serve a SOCK_SEQPACKET socket until its end.  A client may die at any moment: processes that were
 * locked or checkpointed over this socket and not released are brought back to running then.
 * errors  RC_IO */
enum rc serve(int socket, struct err *err);

/* For a signal that says that the client has died: nobody else will end us if the driver hangs, so
 * the alarm clock does, after some minutes. */
void serve_alone(int sig);
