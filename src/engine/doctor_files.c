/* What a process has open. */
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/doctor_priv.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define PIPES_MAX 1024 /* NR_PIPES_WITH_DATA of CRIU: 4.2 */

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* ---- sockets ---- */

static bool is_known_protocol(const char *name)
{
    static const char *const known[] = {
        "TCP",   "TCPv6", "UDP",    "UDPv6", "UDP-Lite",    "UDPLITE", "UDPLITEv6", "RAW",
        "RAWv6", "PING",  "PINGv6", "UNIX",  "UNIX-STREAM", "NETLINK", "PACKET"};
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    return false;
}

static void check_protocol(const struct doctor_case *c, const struct fdinfo *f)
{
    if (starts(f->protocol, "MPTCP"))
        doctor_add(c->report, DOCTOR_FAIL, "mptcp", c->stat->pid, "CRIU cannot save multipath TCP",
                   "For Go programs set GODEBUG=multipathtcp=0, otherwise sysctl "
                   "net.mptcp.enabled=0, and start the program again.",
                   "%s has a multipath TCP socket: descriptor %d", c->who, f->fd);
    else if (f->protocol[0] && !is_known_protocol(f->protocol))
        doctor_add(c->report, DOCTOR_FAIL, "socket-kind", c->stat->pid,
                   "CRIU cannot save this kind of socket",
                   "Let the program close it before its checkpoint.",
                   "%s has a socket of kind %s: descriptor %d", c->who, f->protocol, f->fd);
}

static void check_connection(const struct doctor_case *c, const struct fdinfo *f,
                             const struct socket_tcp *tcp)
{
    char to[SOCKETS_TEXT_MAX];
    sockets_address(&tcp->remote, tcp->remote_port, to);
    if (c->request->tcp_established && !doctor_has_cap(c->self, CAP_NET_ADMIN))
        doctor_add(c->report, DOCTOR_FAIL, "tcp-rights", c->stat->pid,
                   "to keep a connection chrek must hold back its packets meanwhile",
                   "Run chrek with CAP_NET_ADMIN, or let connections be closed.",
                   "%s has a connection to %s: descriptor %d", c->who, to, f->fd);
    else if (c->request->tcp_established)
        doctor_add(c->report, DOCTOR_WARN, "tcp-kept", c->stat->pid,
                   "it lives on only if it is restored before the other side gives up, with the "
                   "same address, and only once",
                   NULL, "%s has a connection to %s: descriptor %d", c->who, to, f->fd);
    else
        doctor_add(c->report, DOCTOR_WARN, "tcp-outside", c->stat->pid,
                   "after a restore the program finds it closed, as after a network failure",
                   "Nothing, if the program connects again by itself. Else use --tcp-established.",
                   "%s has a connection to %s: descriptor %d", c->who, to, f->fd);
}

static void check_tcp(const struct doctor_case *c, const struct fdinfo *f,
                      const struct sockets *table, const struct doctor_ids *inside)
{
    const struct socket_tcp *tcp = starts(f->protocol, "TCP") ? sockets_find(table, f->ino) : NULL;
    if (!tcp)
        return;
    const struct socket_tcp *peer = sockets_peer(table, tcp);
    bool waiting = tcp->state == TCP_LISTEN && tcp->pending;
    if (waiting && c->request->skip_in_flight)
        doctor_add(c->report, DOCTOR_WARN, "tcp-dropped", c->stat->pid,
                   "in a restored program they are gone, and whoever has made them waits in vain",
                   NULL, "%s has %" PRIu64 " connections waiting at a listener: descriptor %d",
                   c->who, tcp->pending, f->fd);
    else if (waiting)
        doctor_add(c->report, DOCTOR_FAIL, DOCTOR_TCP_PENDING, c->stat->pid,
                   "a connection that the program has not accepted yet cannot be saved",
                   "Try again in a moment, or drop such connections with --skip-in-flight.",
                   "%s has %" PRIu64 " connections waiting at a listener: descriptor %d", c->who,
                   tcp->pending, f->fd);
    else if (tcp->state != TCP_LISTEN && tcp->state != TCP_CLOSE &&
             !(peer && doctor_has_id(inside, peer->ino)))
        check_connection(c, f, tcp);
}

/* ---- devices ---- */

static bool is_savable_device(const struct fdinfo *f)
{
    unsigned a = major(f->rdev), b = minor(f->rdev);
    if (f->kind == FD_TTY)
        return a != 4 || b < 64; /* serial lines are not */
    return f->kind == FD_CHARDEV && (a == 1 || (a == 10 && (b == 200 || b == 235)));
}

static void check_device(const struct doctor_case *c, const struct fdinfo *f)
{
    if (is_savable_device(f))
        return;
    if (c->cuda && starts(f->target, "/dev/nvidia"))
        doctor_add(c->report, DOCTOR_WARN, "gpu-state", c->stat->pid,
                   "its driver saves what CUDA keeps there: driver 570 or newer; no managed or "
                   "exported memory, MIG or MPS; NCCL without P2P and NVLS",
                   "See docs/gpu.md, and chrek-gpu list for what this driver can do.",
                   "%s uses a GPU: '%.200s', descriptor %d", c->who, f->target, f->fd);
    else if (starts(f->target, "/dev/nvidia") || starts(f->target, "/dev/dri/") ||
             starts(f->target, "/dev/kfd"))
        doctor_add(c->report, DOCTOR_FAIL, "gpu", c->stat->pid,
                   "the state of a GPU is not part of the process",
                   "Let the program release the GPU before its checkpoint, or load it only after "
                   "a restore.",
                   "%s has a GPU open: '%.200s', descriptor %d", c->who, f->target, f->fd);
    else
        doctor_add(c->report, DOCTOR_FAIL, "device", c->stat->pid,
                   "the state of a device is not part of the process",
                   "Let the program close the device before its checkpoint.",
                   "%s has a device open: '%.200s', descriptor %d", c->who, f->target, f->fd);
}

/* ---- kernel objects ---- */

static void check_pidfd(const struct doctor_case *c, const struct fdinfo *f)
{
    pid_t pid = f->info.pidfd_pid;
    if (pid > 0 && !doctor_in_tree(c, pid))
        doctor_add(c->report, DOCTOR_FAIL, "pidfd", c->stat->pid,
                   "the process that it stands for is not part of the checkpoint",
                   "Let the program close it, or checkpoint a parent of both.",
                   "%s holds process %d, which is not below it: descriptor %d", c->who, (int)pid,
                   f->fd);
}

static void check_object(const struct doctor_case *c, const struct fdinfo *f)
{
    static const struct {
        enum fd_kind kind;
        const char *id, *why, *remedy;
    } objects[] = {
        {FD_IO_URING, "io-uring", "an io_uring ring cannot be saved", DOCTOR_NO_IO_URING},
        {FD_SECRET, "memfd-secret", "nobody but the process itself can read that memory, nor CRIU",
         "Tell the program not to use memfd_secret(), or start it where secretmem.enable=0 is set "
         "on the kernel's command line."},
        {FD_USERFAULTFD, "userfaultfd", "the program handles its own page faults, as CRIU would",
         "Switch that off (a garbage collector or virtual machine monitor uses it)."},
        {FD_PERF, "perf", "performance counters cannot be saved",
         "Stop profiling before the checkpoint."},
        {FD_BPF, "bpf", "BPF maps, programs and links cannot be saved",
         "Let the program unload them before its checkpoint."},
        {FD_DMABUF, "gpu", "a buffer shared with a GPU or camera cannot be saved",
         "Let the program release the device before its checkpoint."},
        {FD_KVM, "kvm", "a virtual machine's CPUs are not part of the process",
         "Use the snapshot function of the virtual machine monitor."},
        {FD_ANON, "kernel-object", "CRIU does not know how to save this kernel object",
         "Let the program close it before its checkpoint."},
        {FD_BLOCKDEV, "device", "the state of a disk is not part of the process",
         "Let the program close the disk before its checkpoint."},
    };
    for (size_t i = 0; i < ARRAY_LEN(objects); i++)
        if (objects[i].kind == f->kind)
            doctor_add(c->report, DOCTOR_FAIL, objects[i].id, c->stat->pid, objects[i].why,
                       objects[i].remedy, "%s has %s open: '%.200s', descriptor %d", c->who,
                       fd_kind_name(f->kind), f->target, f->fd);
}

/* ---- files ---- */

/* Kinds that live on a mount which a process sees; pipes and the like are on the kernel's own. */
static bool lies_on_a_mount(const struct fdinfo *f)
{
    return f->kind == FD_FILE || f->kind == FD_DIRECTORY || f->kind == FD_FIFO ||
           f->kind == FD_SYMLINK || f->kind == FD_CHARDEV;
}

static void foreign_mount(const struct doctor_case *c, const char *target, const char *where)
{
    doctor_add(c->report, DOCTOR_FAIL, "foreign-mount", c->stat->pid,
               "it was opened before the program got its own view of the file systems, and a "
               "restore could not find it again",
               "Start the program with `chrek run`, or let whoever starts it not pass on that "
               "descriptor.",
               "%s uses a file on a mount that it does not have: '%.200s', %s", c->who, target,
               where);
}

static void check_file(const struct doctor_case *c, const struct fdinfo *f,
                       const struct doctor_ids *mounts)
{
    char where[32];
    (void)snprintf(where, sizeof(where), "descriptor %d", f->fd);
    if (lies_on_a_mount(f) && f->info.mnt_id >= 0 && mounts->n &&
        !doctor_has_id(mounts, (uint64_t)f->info.mnt_id))
        foreign_mount(c, f->target, where);
    if (f->kind == FD_FILE && f->deleted && f->disk_bytes > c->ghost_limit)
        doctor_add(c->report, DOCTOR_FAIL, "deleted-file", c->stat->pid,
                   "its content exists nowhere else, and is more than the limit for such files",
                   "Raise the limit with --ghost-limit.",
                   "%s has a deleted file of %" PRIu64 " MiB open: '%.200s', %s", c->who,
                   f->disk_bytes >> 20, f->target, where);
    if (f->kind == FD_PIPE && f->info.flags & O_DIRECT)
        doctor_add(c->report, DOCTOR_FAIL, "packet-pipe", c->stat->pid,
                   "CRIU cannot save a pipe in packet mode",
                   "Let the program open its pipes without O_DIRECT.",
                   "%s has a pipe in packet mode: %s", c->who, where);
}

/* The mount that a link of the task ("cwd", "exe") leads to; -1 when that cannot be told. */
static int mount_of_link(const struct doctor_case *c, const char *link)
{
    char path[48];
    struct fdinfo_text info;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(fd_closep) int fd = sys_openat(c->task, link, O_PATH, 0);
    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
    if (fd < 0 || task_read(AT_FDCWD, path, &text, NULL) != RC_OK ||
        fdinfo_parse(text.data, text.len, &info, NULL) != RC_OK)
        return -1;
    return info.mnt_id;
}

static void check_links(const struct doctor_case *c, const struct doctor_ids *mounts)
{
    static const char *const links[][2] = {
        {"cwd", "its working directory"}, {"root", "its root"}, {"exe", "its program"}};
    for (size_t i = 0; mounts->n && i < ARRAY_LEN(links); i++) {
        CLEANUP(mem_freep) char *target = NULL;
        int id = mount_of_link(c, links[i][0]);
        if (id >= 0 && !doctor_has_id(mounts, (uint64_t)id) &&
            task_link(c->task, links[i][0], &target, NULL) == RC_OK)
            foreign_mount(c, target, links[i][1]);
    }
}

static void check_one(const struct doctor_case *c, const struct fdinfo *f,
                      const struct sockets *tcp, const struct doctor_tree_facts *facts)
{
    check_object(c, f);
    check_file(c, f, &facts->mounts);
    if (f->kind == FD_CHARDEV || f->kind == FD_TTY)
        check_device(c, f);
    if (f->kind == FD_PIDFD)
        check_pidfd(c, f);
    if (f->kind == FD_SOCKET) {
        check_protocol(c, f);
        check_tcp(c, f, tcp, &facts->sockets);
    }
}

static size_t count(const struct doctor_ids *ids)
{
    size_t n = 0;
    for (size_t i = 0; i < ids->n; i++)
        n += i == 0 || ids->list[i] != ids->list[i - 1];
    return n;
}

void doctor_check_amount(const struct doctor_case *c, const struct doctor_tree_facts *facts)
{
    const struct {
        const struct doctor_ids *ids;
        const char *what;
    } kinds[] = {{&facts->pipes, "pipes"}, {&facts->fifos, "named pipes"}};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        size_t n = count(kinds[i].ids);
        if (n > PIPES_MAX)
            doctor_add(c->report, DOCTOR_FAIL, "pipes", c->tree[0].pid,
                       "CRIU has room for 1024 of a whole tree, and cannot be told to have more",
                       "Start the program with fewer workers or tasks, or let it close pipes that "
                       "it does not need, before its checkpoint.",
                       "process %d (%s) and its descendants read from %zu %s", (int)c->tree[0].pid,
                       c->tree[0].name, n, kinds[i].what);
    }
}

void doctor_check_files(const struct doctor_case *c, const struct fdinfo_list *fds,
                        const struct doctor_tree_facts *facts)
{
    CLEANUP(sockets_done) struct sockets tcp = {0};
    struct err err = ERR_INIT;
    enum rc rc = sockets_read(c->task, &tcp, &err);
    if (rc && rc != RC_NOT_FOUND)
        doctor_add(c->report, DOCTOR_WARN, "sockets-unknown", c->stat->pid,
                   "nothing can be said about its connections", "Run chrek as root.", "%s: %s",
                   c->who, err.msg);
    check_links(c, &facts->mounts);
    for (size_t i = 0; i < fds->n; i++)
        check_one(c, &fds->list[i], &tcp, facts);
}
