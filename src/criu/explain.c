#include "criu/explain.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/sys.h"

#include <ctype.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOG_MAX ((off_t)64 << 20)

/* Errors that CRIU prints and then lives with. */
static const char *const harmless[] = {
    "RLIMIT_NOFILE", "kdat cache",           "apparmor", "Unable to open /sys/kernel/security",
    "iptables",      "Unable to create tun",
};

/* Consequences: true, but never the cause. */
static const char *const consequences[] = {
    "Dumping FAILED",     "Restoring FAILED",       "Dump files (pid:", "Dump mm (pid:",
    "Collect fds",        "Unable to detach from ", "exited, status=",  "killed by signal",
    "Pre-dumping FAILED", "Error happened, ",
};

struct pattern {
    const char *needle;
    enum rc rc;
    const char *meaning, *remedy;
};

static const struct pattern patterns[] = {
    {"io_uring", RC_UNSUPPORTED, "the program uses io_uring, which cannot be saved",
     "start it with `chrek run --no-io-uring`, or in a container whose seccomp profile refuses "
     "io_uring"},
    {"send_fds failed", RC_UNSUPPORTED,
     "a descriptor cannot be handed to CRIU, usually an io_uring ring",
     "start it with `chrek run --no-io-uring`, or in a container whose seccomp profile refuses "
     "io_uring"},
    {"is outside of its pid namespace", RC_UNSUPPORTED,
     "the program belongs to a session that began outside its PID namespace",
     "start it in a session of its own: setsid PROGRAM, or `chrek run`"},
    {"Can't fork for", RC_CONFLICT, "a PID that the tree needs is in use",
     "wait until the original has ended and been reaped, or restore into a box (chrek restore)"},
    {"do not match expected", RC_CONFLICT, "a PID that the tree needs is in use",
     "wait until the original has ended, or restore into a box (chrek restore)"},
    {"Can't open master pty", RC_CONFLICT,
     "the number of a terminal that the program needs is taken",
     "restore into a box (chrek restore), which has terminals of its own"},
    {"Can't setns", RC_UNSUPPORTED,
     "the program lives in a user namespace of its own, inside namespaces that it does not own",
     "leave `unshare --user` or the program's sandbox out"},
    {"mptcp", RC_UNSUPPORTED, "the program uses multipath TCP, which cannot be saved",
     "switch it off: GODEBUG=multipathtcp=0 for Go programs"},
    {"Can't get 1:16 opt", RC_UNSUPPORTED, "this CRIU is too old for sockets of this kernel",
     "use CRIU 4.2 or newer (tools/get-criu)"},
    {"cpu: ", RC_UNSUPPORTED, "this CPU lacks features that the program uses",
     "restore on a machine with the same or a newer CPU"},
    {"xsave", RC_UNSUPPORTED, "this CPU lacks features that the program uses",
     "restore on a machine with the same or a newer CPU"},
    {"OOM storing pipe", RC_UNSUPPORTED,
     "the program reads from more than 1024 pipes, and CRIU has no room for more",
     "start it with fewer workers or tasks, or let it close pipes that it does not need"},
    {"Too many open files", RC_IO, "the limit of open files is too low",
     "raise it: ulimit -n, or LimitNOFILE= of the unit"},
    {"Cannot allocate memory", RC_IO, "there is too little memory",
     "free memory, or raise the memory limit of the container"},
    {"Can't lookup mount", RC_UNSUPPORTED,
     "a file was opened through a mount that the program's mount namespace does not have",
     "start the program with `chrek run`, or close that descriptor first"},
    {"is not allowed to be dumped", RC_UNSUPPORTED, "the tree holds something CRIU cannot save",
     "see dump.log"},
    {"Connected TCP socket", RC_UNSUPPORTED, "the program has open TCP connections",
     "use --tcp-established to keep them, or close them first"},
    {"In-flight connection", RC_CONFLICT, "a TCP connection is just being opened",
     "try again, or use --skip-in-flight"},
    {"ghost file", RC_TOO_BIG, "a deleted file that is still open is larger than the limit",
     "raise it with --ghost-limit"},
    {"Can't get rlimit", RC_DENIED,
     "the limits of a process of another user cannot be read without CAP_SYS_RESOURCE",
     "run chrek with CAP_SYS_RESOURCE, or with the CRIU that chrek ships"},
    {"has bad size", RC_CONFLICT, "a file that the program has open has another size now",
     "give it back the size that it had (truncate -s SIZE FILE, if what was written since may go), "
     "or "
     "let the program open its logs for appending only (>>)"},
    {"has bad mode", RC_CONFLICT, "a file that the program has open has another mode now",
     "restore with the same files as at the checkpoint"},
    {"has bad build-id", RC_CONFLICT, "a program or library was replaced since the checkpoint",
     "make a new checkpoint with the new version"},
    {"bad checksum", RC_CONFLICT, "a file that the program maps was changed since the checkpoint",
     "make a new checkpoint with the new version"},
    {"Can't bind", RC_CONFLICT, "an address that the program listens on is taken",
     "end what listens there (ss -ltnp shows it), or start the program with --net private before "
     "its "
     "checkpoint"},
    {"Address already in use", RC_CONFLICT, "an address that the program listens on is taken",
     "end what listens there (ss -ltnp shows it), or start the program with --net private before "
     "its "
     "checkpoint"},
    {"Can't open file", RC_NOT_FOUND, "a file that the program needs is not there any more",
     "put it back where it was"},
    {"Can't open", RC_NOT_FOUND, "something that the program needs cannot be opened any more",
     "put it back where it was"},
    {"Can't stat", RC_NOT_FOUND, "a file that the program needs is not there any more",
     "put it back where it was"},
    {"unlink_stale", RC_NOT_FOUND, "a socket's directory is not there any more",
     "put it back where it was"},
    {"doesn't live in IPC ns", RC_UNSUPPORTED,
     "the program uses SysV shared memory of the whole machine",
     "start it with `chrek run`, which gives it its own"},
    {"seize", RC_DENIED, "the process cannot be traced",
     "run as root with CAP_SYS_PTRACE, detach debuggers, and check kernel.yama.ptrace_scope"},
    {"Unable to restore capabilities", RC_DENIED,
     "the program had more capabilities than it may have here", "run chrek with as many as before"},
    {"A session leader of", RC_UNSUPPORTED, "the program belongs to a session outside its tree",
     "start it with `chrek run` or setsid"},
    {"external bind mount", RC_UNSUPPORTED, "a mount of the program's namespace is not known here",
     "start it with `chrek run`"},
    {"No space left", RC_NO_SPACE, "the disk is full", "make room in the store"},
    {"CRIU needs", RC_DENIED, "CRIU has too few rights", "run chrek as root"},
    {"anon_inode", RC_UNSUPPORTED, "the program uses a kernel object that cannot be saved",
     "see the line above: the name in brackets says which"},
    {"Unknown shit", RC_UNSUPPORTED, "the program uses a kind of descriptor that cannot be saved",
     "close it first"},
    {"dumping of AF_", RC_UNSUPPORTED, "the program uses a kind of socket that cannot be saved",
     "close it first"},
};

static bool has_any(const char *line, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcasestr(line, list[i]))
            return true;
    return false;
}

/* "(00.046) 301: Error (criu/files.c:12): text" -> "text"; false if the line is no error. */
static bool error_text(const char *line, size_t len, char *out, size_t cap)
{
    const char *at = memmem(line, len, "Error (", 7);
    const char *colon = at ? memmem(at, len - (size_t)(at - line), "): ", 3) : NULL;
    if (!colon)
        return false;
    colon += 3;
    size_t n = len - (size_t)(colon - line);
    if (n >= cap)
        n = cap - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = isprint((unsigned char)colon[i]) ? colon[i] : '?';
    out[n] = '\0';
    return true;
}

static void look_up(struct cr_explanation *x)
{
    for (size_t i = 0; i < ARRAY_LEN(patterns); i++)
        if (strcasestr(x->line, patterns[i].needle)) {
            x->meaning = patterns[i].meaning;
            x->remedy = patterns[i].remedy;
            x->rc = patterns[i].rc;
            return;
        }
}

void cr_explain(const char *log, size_t len, struct cr_explanation *out)
{
    struct cr_explanation first = {.rc = RC_IO};
    const char *end = log + len;
    for (const char *line = log; line < end;) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((eol ? eol : end) - line);
        struct cr_explanation x = {.rc = RC_IO};
        if (error_text(line, n, x.line, sizeof(x.line)) &&
            !has_any(x.line, harmless, ARRAY_LEN(harmless)) &&
            !has_any(x.line, consequences, ARRAY_LEN(consequences))) {
            look_up(&x);
            if (x.meaning) { /* one that we know beats an earlier one that we do not */
                *out = x;
                return;
            }
            if (!first.line[0])
                first = x;
        }
        line = eol ? eol + 1 : end;
    }
    *out = first;
}

/* The log, or the end of a very long one: what CRIU fails of is not far from its end. */
static enum rc read_log(int dirfd, const char *name, struct buf *out)
{
    struct stat st;
    size_t n = 0;
    CLEANUP(fd_closep) int fd = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return RC_NOT_FOUND;
    if (st.st_size > LOG_MAX && lseek(fd, -LOG_MAX, SEEK_END) < 0)
        return RC_IO;
    size_t size = (size_t)(st.st_size > LOG_MAX ? LOG_MAX : st.st_size);
    out->max = size;
    enum rc rc = sys_read_full(fd, buf_room(out, size), size, &n, NULL);
    if (!rc)
        buf_grew(out, n);
    return rc;
}

enum rc cr_explain_file(int dirfd, const char *name, enum rc rc, struct err *err)
{
    if (rc != RC_IO)
        return rc;
    CLEANUP(buf_done) struct buf log = BUF_INIT;
    if (read_log(dirfd, name, &log) != RC_OK)
        return rc;
    struct cr_explanation x;
    cr_explain(buf_str(&log), log.len, &x);
    if (!x.line[0])
        return rc;
    if (x.meaning)
        return err_set(err, x.rc, "%s; %s [criu: %.200s]", x.meaning, x.remedy, x.line);
    return err_set(err, x.rc, "CRIU: %s", x.line);
}
