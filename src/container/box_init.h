/* The box's init and what it says to its maker; private to container/ (box.c, box_init.c).
 *
 * Control messages go over a SOCK_SEQPACKET pair.  The maker sends START, ADOPT, SIGNAL,
 * SIGNAL_GROUP; init answers READY (once), STARTED, FAILED, and EXITED (once, its last word).
 */
#pragma once

#include "container/box.h"

#include <stdint.h>
#include <sys/types.h>

enum box_message_type {
    BOX_READY = 1,
    BOX_START,   /* value: number of arguments, stage: of variables; a file with the strings */
    BOX_STARTED, /* value: PID; with a pty, its master */
    BOX_FAILED,  /* value: errno, stage: enum box_stage */
    BOX_ADOPT,   /* value: PID */
    BOX_SIGNAL,  /* value: signal */
    BOX_SIGNAL_GROUP,
    BOX_EXITED, /* value: wait status, stage: 1 if other processes end with us */
};

/* What failed, so that the maker can say it. */
enum box_stage {
    BOX_STAGE_PRIVATE_MOUNTS,
    BOX_STAGE_PROC,
    BOX_STAGE_PTS,
    BOX_STAGE_SHM,
    BOX_STAGE_APP_DIR,
    BOX_STAGE_LOOPBACK,
    BOX_STAGE_SIGNALS,
    BOX_STAGE_STDIO,
    BOX_STAGE_FILTER,
    BOX_STAGE_COMMAND,
    BOX_STAGE_FORK,
    BOX_STAGE_EXEC,
    BOX_STAGE_COUNT_,
};

struct box_message {
    int32_t type;
    int32_t value;
    int32_t stage;
};

const char *box_stage_name(int stage);

/* Send a message, with a descriptor unless `fd` is negative.  -1 and errno on failure. */
int box_message_send(int sk, const struct box_message *m, int fd);

/* Receive one message and at most one descriptor (-1 if none came); 0 when the peer is gone,
 * -1 and errno on failure (EPROTO: not a message of ours). */
ssize_t box_message_receive(int sk, struct box_message *m, void *data, size_t cap, int *out_fd);

/* The body of init, in the child that has just been made.  Never returns. */
_Noreturn void box_init_main(const struct box_config *config, int control);
