/* What a container's entrypoint and its node's agent say to each other when the agent restores for
 * it: packets over a Unix socket (SOCK_SEQPACKET), a JSON object each, some with descriptors.
 *
 *   entrypoint                                agent
 *   restore {id, timeout_s}  + 4 fds   ->                  its own pidfd, its standard streams
 *                                      <-     wait {}      every second, until something else comes
 *                                      <-     prepare {files, shm, deleted, metadata} + fds
 *   prepared {}                        ->                  its files are as the tree needs them
 *                                      <-     ready {pid}  the tree is whole and stands still
 *   go {}                              ->                  it is still wanted
 *                                      <-     restored {pid}
 *
 * Either may say failed {error} instead and is done; the agent's failed {error, absent} means that
 * it has no such checkpoint, and that nothing was begun.  A tree runs only after `go`: an
 * entrypoint that has given up meanwhile, and started its command, has closed the socket and cannot
 * say it.
 *
 * Whatever the other one says is outside bytes.
 * Threads: a socket may be written to by several threads, and read by one.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

#define TALK_FDS_MAX 4
#define TALK_PACKET_MAX ((size_t)64 << 10)

#define TALK_RESTORE "restore"
#define TALK_WAIT "wait"
#define TALK_PREPARE "prepare"
#define TALK_PREPARED "prepared"
#define TALK_READY "ready"
#define TALK_GO "go"
#define TALK_RESTORED "restored"
#define TALK_FAILED "failed"

struct talk {
    yyjson_doc *doc;
    const char *type; /* in `doc` */
    int fd[TALK_FDS_MAX];
    size_t n_fds;
};

#define TALK_INIT                                                                                  \
    {                                                                                              \
        .n_fds = 0                                                                                 \
    }

/* One packet.
 * members  of the object: pairs of name and text, or NULL; `type` is put before them
 * fds      borrowed
 * errors   RC_CANCELLED (nobody is there any more), RC_TIMEOUT (it does not read), RC_TOO_BIG,
 *          RC_IO */
enum rc talk_send(int sk, const char *type, const char *const *members, const int *fds, size_t n,
                  struct err *err);

/* The next packet.
 * deadline  monotonic ns, 0 = none
 * out       the caller's, talk_done(); its descriptors have close-on-exec
 * errors    RC_CANCELLED (the other end is closed), RC_TIMEOUT, RC_CORRUPT (no such packet), RC_IO
 */
enum rc talk_receive(int sk, uint64_t deadline, struct talk *out, struct err *err);

/* The same, but `wait` is not given to the caller, and `failed` is an error of the call.
 * silence_ns  how long the other end may say nothing at all
 * type        what is expected
 * errors      also RC_UNAVAILABLE (failed: the other's reason), RC_NOT_FOUND (the same: absent) */
enum rc talk_expect(int sk, const char *type, uint64_t silence_ns, uint64_t deadline,
                    struct talk *out, struct err *err);
void talk_done(struct talk *t); /* for CLEANUP() */

/* A text or number of the packet. */
const char *talk_text(const struct talk *t, const char *name);
uint64_t talk_number(const struct talk *t, const char *name);
