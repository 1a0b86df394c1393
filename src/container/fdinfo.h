/* The open descriptors of a process, with what each one is.
 *
 * Read from /proc/<pid>/fd and fdinfo without touching the process: nothing is opened, so no device
 * notices and nothing blocks.  All text is outside bytes: a process chooses its file names.
 * Threads: a list belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FDINFO_MAX 1048576 /* descriptors of one process; more are RC_TOO_BIG */

enum fd_kind {
    FD_UNKNOWN,
    FD_FILE,
    FD_DIRECTORY,
    FD_SYMLINK, /* O_PATH */
    FD_CHARDEV,
    FD_BLOCKDEV,
    FD_FIFO, /* with a name */
    FD_PIPE,
    FD_SOCKET,
    FD_TTY, /* terminals and pty masters */
    FD_MEMFD,
    FD_SECRET, /* memfd_secret() */
    FD_NAMESPACE,
    FD_EVENTFD,
    FD_EPOLL,
    FD_TIMERFD,
    FD_SIGNALFD,
    FD_INOTIFY,
    FD_FANOTIFY,
    FD_PIDFD,
    FD_USERFAULTFD,
    FD_IO_URING,
    FD_PERF,
    FD_BPF, /* maps, programs, links */
    FD_DMABUF,
    FD_KVM,
    FD_ANON, /* another anonymous inode; `target` names it */
    FD_KIND_COUNT_,
};

/* One word for people: "pipe". */
const char *fd_kind_name(enum fd_kind kind);

/* The lines that /proc/<pid>/fdinfo/<fd> has for every kind, and those that some have. */
struct fdinfo_text {
    uint64_t pos;
    unsigned flags;   /* O_* */
    int mnt_id;       /* -1 = not told */
    uint64_t ino;     /* 0 = not told */
    unsigned locks;   /* file locks and leases held through it */
    unsigned watches; /* of inotify, fanotify, epoll */
    pid_t pidfd_pid;  /* of a pidfd, as the proc file system sees it; -1 = gone; 0 = no pidfd */
};

/* Unknown lines are skipped.  errors  RC_CORRUPT (a known line makes no sense) */
enum rc fdinfo_parse(const char *text, size_t len, struct fdinfo_text *out, struct err *err);

struct fdinfo {
    int fd;
    enum fd_kind kind;
    char *target;      /* what the link says: a path, "socket:[4711]", "anon_inode:[eventfd]" */
    bool deleted;      /* a file whose name has gone */
    char protocol[24]; /* of a socket: "TCP", "UDPv6", "UNIX-STREAM", "MPTCP"; "" = not known */
    struct fdinfo_text info;
    dev_t dev, rdev; /* rdev: of a device node */
    ino_t ino;
    uint64_t size_bytes;
    uint64_t disk_bytes; /* without holes */
    unsigned links;
};

struct fdinfo_list {
    struct fdinfo *list; /* ascending */
    size_t n;
    size_t skipped; /* that were there, and could not be looked at */
};

/* Of an open task (container/task.h).  Descriptors that are closed meanwhile are left out.
 * errors  RC_NOT_FOUND (it has gone), RC_DENIED (another user's process), RC_TOO_BIG */
enum rc fdinfo_read(int task, struct fdinfo_list *out, struct err *err);
void fdinfo_done(struct fdinfo_list *l); /* for CLEANUP() */

/* The kind, from the link's text and the file's mode and device.  Never fails. */
enum fd_kind fd_kind_of(const char *target, mode_t mode, dev_t rdev);
