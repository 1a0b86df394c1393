/* What a process is: its state, rights and namespaces; and its memory. */
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/maps.h"
#include "container/scan.h"
#include "engine/doctor_priv.h"

#include <inttypes.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

static void fail(const struct doctor_case *c, const char *id, const char *why, const char *remedy,
                 const char *what)
{
    doctor_add(c->report, DOCTOR_FAIL, id, c->stat->pid, why, remedy, "%s %s", c->who, what);
}

static void warn(const struct doctor_case *c, const char *id, const char *why, const char *remedy,
                 const char *what)
{
    doctor_add(c->report, DOCTOR_WARN, id, c->stat->pid, why, remedy, "%s %s", c->who, what);
}

static bool is_root(const struct doctor_case *c)
{
    return c->stat == &c->tree[0];
}

/* ---- state ---- */

static void check_state(const struct doctor_case *c)
{
    if (c->status->kernel_thread || task_is_kernel_thread(c->stat))
        fail(c, "kernel-thread", "a part of the kernel cannot be saved",
             "Name a process of your own: `ps -ef` shows kernel threads in brackets.",
             "is a kernel thread");
    else if (c->stat->state == 'Z' && c->status->threads > 1)
        fail(c, "zombie-threads", "CRIU cannot save a process whose main thread has ended",
             "Let the main thread wait for the others (pthread_join) instead of ending first.",
             "goes on without its main thread");
    else if (c->stat->state == 'Z' && is_root(c))
        fail(c, "zombie", "there is nothing left to save", "Start it again.",
             "has ended and only waits for its parent to notice");
}

/* The system call that a waiting task is in, -1 if that cannot be told. */
static int64_t current_call(int task, const char *file)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct scan word, s;
    int64_t number = -1;
    if (task_read(task, file, &text, NULL) != RC_OK)
        return -1;
    s = scan_of(text.data, text.len);
    if (!scan_word(&s, &word) || !scan_i64(word, 0, 10000, &number))
        return -1;
    return number;
}

static bool is_birth(int64_t call)
{
#ifdef SYS_vfork
    if (call == SYS_vfork)
        return true;
#endif
    return call == SYS_clone || call == SYS_clone3;
}

/* A thread that waits where no signal reaches it cannot be stopped. */
static void check_waiting(const struct doctor_case *c)
{
    CLEANUP(mem_freep) pid_t *tids = NULL;
    size_t n = 0;
    if (c->stat->state == 'Z' || task_threads(c->task, &tids, &n, NULL) != RC_OK)
        return;
    for (size_t i = 0; i < n; i++) {
        char file[40];
        struct task_stat t;
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        (void)snprintf(file, sizeof(file), "task/%d/stat", (int)tids[i]);
        if (task_read(c->task, file, &text, NULL) != RC_OK ||
            task_stat_parse(text.data, text.len, &t, NULL) != RC_OK || t.state != 'D')
            continue;
        (void)snprintf(file, sizeof(file), "task/%d/syscall", (int)tids[i]);
        if (is_birth(current_call(c->task, file)))
            fail(c, "vfork",
                 "until its child has started a program of its own it cannot be stopped",
                 "Try again in a moment. If it stays, see what its child waits for.",
                 "is starting a child (vfork)");
        else
            warn(c, "uninterruptible", "it cannot be stopped before that is over",
                 "Try again in a moment. If it stays, look for a disk or file server that does not "
                 "answer.",
                 "waits for a disk or a server without being interruptible");
    }
}

static void tracer_name(const struct doctor_case *c, char *out, size_t cap)
{
    char path[32];
    struct task_stat t;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)snprintf(path, sizeof(path), "../%d/stat", (int)c->status->tracer);
    out[0] = '\0';
    if (task_read(c->task, path, &text, NULL) == RC_OK &&
        task_stat_parse(text.data, text.len, &t, NULL) == RC_OK)
        (void)snprintf(out, cap, " (%s)", t.name);
}

/* It is started as `criu swrk`, through a loader: its name says nothing. */
static bool is_criu(const struct doctor_case *c, pid_t pid)
{
    static const char verb[] = "\0swrk\0";
    char path[32];
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)snprintf(path, sizeof(path), "../%d/cmdline", (int)pid);
    return task_read(c->task, path, &text, NULL) == RC_OK && text.len &&
           memmem(text.data, text.len, verb, sizeof(verb) - 1);
}

static void check_traced(const struct doctor_case *c)
{
    char name[TASK_NAME_MAX + 4];
    if (!c->status->tracer)
        return;
    if (is_criu(c, c->status->tracer)) {
        doctor_add(c->report, DOCTOR_FAIL, DOCTOR_BEING_SAVED, c->stat->pid,
                   "two cannot do that at once", "Wait until that checkpoint is done.",
                   "%s is just being saved, by CRIU (process %d)", c->who, (int)c->status->tracer);
        return;
    }
    tracer_name(c, name, sizeof(name));
    doctor_add(c->report, DOCTOR_FAIL, "traced", c->stat->pid,
               "a process can have only one tracer, and CRIU has to be it",
               "Detach or end the debugger, strace or profiler first.",
               "%s is being traced by process %d%s", c->who, (int)c->status->tracer, name);
}

/* ---- rights ---- */

static void check_user(const struct doctor_case *c)
{
    bool other = c->status->uid[0] != c->self->status.uid[0];
    if (doctor_is_forbidden(c))
        doctor_add(c->report, DOCTOR_FAIL, "other-user", c->tree[0].pid, /* told once for a tree */
                   "only root may stop and read processes of other users", "Run chrek as root.",
                   "%s belongs to another user", c->who);
    else if (other && !doctor_has_cap(c->self, CAP_SYS_RESOURCE))
        warn(c, "other-user-limits",
             "without CAP_SYS_RESOURCE the limits of another user's process cannot be read in the "
             "usual way",
             "The CRIU that chrek ships finds another way. With a CRIU of your own, run chrek with "
             "CAP_SYS_RESOURCE.",
             "belongs to another user");
}

static void check_seccomp(const struct doctor_case *c)
{
    bool may = doctor_has_cap(c->self, CAP_SYS_ADMIN) && c->self->initial_userns;
    if (c->status->seccomp && !may)
        fail(c, "seccomp", "only the administrator of the machine can save seccomp filters",
             "Run chrek as root outside of any container (CAP_SYS_ADMIN), or start the program "
             "without a seccomp profile.",
             "is restricted by seccomp");
    else if (c->self->status.seccomp == 2 && c->status->seccomp == 0)
        warn(c, "seccomp-self",
             "chrek is under a filter that the process is not, which may forbid what CRIU needs",
             "Run chrek without a seccomp profile, or with one that allows ptrace and clone3.",
             "is less restricted than chrek itself");
}

static void check_lsm(const struct doctor_case *c)
{
    CLEANUP(buf_done) struct buf label = BUF_INIT;
    if (task_read(c->task, "attr/current", &label, NULL) != RC_OK || !label.len)
        return;
    struct scan s = scan_of(label.data, strnlen(label.data, label.len)), line;
    if (!scan_line(&s, &line) || !scan_len(line) || scan_starts(line, "unconfined") ||
        scan_starts(line, "kernel"))
        return;
    CLEANUP(mem_freep) char *text = scan_dup(line);
    doctor_add(c->report, DOCTOR_WARN, "lsm", c->stat->pid,
               "the same profile or context must exist where it is restored",
               "Load the same AppArmor profile or SELinux policy on the machine of the restore.",
               "%s is confined by a security profile: '%s'", c->who, text);
}

/* ---- namespaces ---- */

static void check_pid_namespace(const struct doctor_case *c)
{
    if (is_root(c) && task_inner_pid(c->status) == 1 && c->status->n_ns_pid > 1 &&
        !c->request->container)
        fail(c, "pid-1",
             "it would have to become PID 1 of the place where it is restored, which is taken",
             "Checkpoint the application that it started. `ps` in the container shows it.",
             "is the first process of its container");
    if (is_root(c) && c->stat->pid == 1)
        fail(c, "init", "the whole machine hangs on it",
             "Name the process that you want to save, not the init of the machine.",
             "is the init of this machine");
}

/* Whether a namespace belongs to the user namespace that the process is in; yes if unknown. */
static bool is_owned(const struct doctor_case *c, enum ns_kind kind)
{
    int fd = -1;
    if (ns_open(c->task, kind, &fd, NULL) != RC_OK)
        return true;
    CLEANUP(fd_closep) int ns = fd;
    CLEANUP(fd_closep) int owner = ioctl(ns, NS_GET_USERNS);
    struct stat st;
    return owner < 0 || fstat(owner, &st) < 0 || st.st_ino == c->ns->id[NS_USER].ino;
}

/* CRIU enters the user namespace first, and can enter no other from there that it does not own. */
static void check_user_namespace(const struct doctor_case *c)
{
    if (is_root(c) && ns_differ(c->ns, &c->self->ns, NS_USER) && !is_owned(c, NS_IPC))
        fail(c, "user-namespace",
             "CRIU saves a user namespace only together with all others of the program",
             "Leave `unshare --user` or the program's sandbox out.",
             "lives in a user namespace of its own, but in an IPC namespace of others");
}

static void check_namespaces(const struct doctor_case *c)
{
    static const enum ns_kind nested[] = {NS_PID, NS_IPC, NS_UTS, NS_USER, NS_TIME};
    check_pid_namespace(c);
    check_user_namespace(c);
    for (size_t i = 0; !is_root(c) && i < ARRAY_LEN(nested); i++)
        if (ns_differ(c->ns, c->root_ns, nested[i]))
            doctor_add(c->report, DOCTOR_FAIL, "nested-namespace", c->stat->pid,
                       "CRIU saves a tree only when all of it lives in the same namespaces",
                       "Switch the program's own sandbox off (browsers: --no-sandbox, bubblewrap, "
                       "unshare: leave them out), or checkpoint that child alone.",
                       "%s has a %s namespace of its own", c->who, ns_name(nested[i]));
    if (!is_root(c) && ns_differ(c->ns, c->root_ns, NS_MNT))
        warn(c, "nested-mounts",
             "its mounts are taken down and rebuilt, which fails for some kinds of file system",
             "Leave the program's own sandbox out if a restore fails with a message on mounts.",
             "has a mount namespace of its own");
    if (!is_root(c) && ns_differ(c->ns, c->root_ns, NS_NET))
        warn(c, "nested-network", "its network devices and rules are rebuilt, as far as possible",
             "Leave the program's own sandbox out if a restore fails with a message on networks.",
             "has a network namespace of its own");
    if (c->ns->id[NS_PID_CHILDREN].ino && c->ns->id[NS_PID].ino != c->ns->id[NS_PID_CHILDREN].ino)
        fail(c, "nested-namespace", "its next child would be in a PID namespace of its own",
             "Let the program run `unshare --fork`, or leave unshare out.",
             "has prepared a PID namespace for its children");
    if (c->ns->id[NS_TIME_CHILDREN].ino &&
        c->ns->id[NS_TIME].ino != c->ns->id[NS_TIME_CHILDREN].ino)
        fail(c, "nested-namespace", "its next child would be in a time namespace of its own",
             "Leave `unshare --time` out.", "has prepared a time namespace for its children");
}

static void check_session(const struct doctor_case *c)
{
    if (c->status->has_inner_sid && c->status->inner_sid == 0)
        fail(c, "session", "CRIU cannot name that session in the checkpoint",
             "Start the program with `setsid`, or with `chrek run`.",
             "belongs to a session from outside its container");
    else if (is_root(c) && c->stat->tty && !doctor_in_tree(c, c->stat->sid))
        warn(c, "terminal",
             "the terminal and its session are not part of the checkpoint; it is restored to the "
             "terminal of `chrek restore`",
             "Start the program with `chrek run` to give it a session of its own.",
             "runs in the session of a shell");
}

static void check_ourselves(const struct doctor_case *c)
{
    if (c->stat->pid == c->self->status.pid && ns_same(c->ns, &c->self->ns, NS_PID))
        fail(c, "ourselves", "it would stop itself while it works",
             "Run chrek from another terminal, or outside of the tree that it checkpoints.",
             "is chrek itself");
}

void doctor_check_task(const struct doctor_case *c)
{
    check_state(c);
    if (c->stat->state == 'Z' || c->status->kernel_thread || task_is_kernel_thread(c->stat))
        return;
    check_ourselves(c);
    check_traced(c);
    check_waiting(c);
    check_user(c);
    check_seccomp(c);
    check_lsm(c);
    check_namespaces(c);
    check_session(c);
}

/* ---- memory ---- */

static bool starts(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

static bool is_deleted(const char *name)
{
    size_t n = strlen(name), k = strlen(" (deleted)");
    return name[0] == '/' && n > k && strcmp(name + n - k, " (deleted)") == 0;
}

/* A node below /dev that is memory of a device, rather than a file that happens to lie there. */
static bool is_device_memory(const struct map *m)
{
    return (m->flags & MAPS_IO && m->name[0] != '[') ||
           (starts(m->name, "/dev/") && !starts(m->name, "/dev/zero") &&
            !starts(m->name, "/dev/shm/") && !starts(m->name, "/dev/hugepages") &&
            !starts(m->name, "/dev/mqueue"));
}

static bool is_gpu(const char *name)
{
    return starts(name, "/dev/nvidia") || starts(name, "/dev/dri/") || starts(name, "/dev/kfd");
}

static void check_unsavable(const struct doctor_case *c, const struct map *m)
{
    if (strstr(m->name, "anon_inode:[io_uring]"))
        fail(c, "io-uring", "an io_uring ring cannot be saved", DOCTOR_NO_IO_URING,
             "uses io_uring (a mapped ring)");
    else if (starts(m->name, "/secretmem"))
        fail(c, "memfd-secret", "nobody but the process itself can read that memory, nor CRIU",
             "Tell the program not to use memfd_secret(), or start it where "
             "secretmem.enable=0 is set on the kernel's command line.",
             "has secret memory (memfd_secret)");
    else if (c->cuda && starts(m->name, "/dev/nvidia"))
        return; /* doctor_check_files() tells */
    else if (is_gpu(m->name))
        fail(c, "gpu", "memory of a GPU is not part of the process",
             "Let the program release the GPU before its checkpoint, or load it only after a "
             "restore.",
             "has memory of a GPU mapped");
    else if (is_device_memory(m))
        doctor_add(c->report, DOCTOR_FAIL, "device-memory", c->stat->pid,
                   "what lies in a device cannot be saved",
                   "Let the program close the device before its checkpoint.",
                   "%s has a device mapped: '%.200s'", c->who, m->name);
    else if (strcmp(m->name, "[uprobes]") == 0)
        fail(c, "uprobes", "a profiler has changed the program in memory",
             "End the profiler (perf, bpftrace) and start the program again.",
             "is watched by uprobes");
    else if (starts(m->name, "anon_inode:"))
        doctor_add(c->report, DOCTOR_FAIL, "kernel-object", c->stat->pid,
                   "CRIU does not know how to save this kernel object",
                   "Let the program close it before its checkpoint.",
                   "%s has a kernel object mapped: '%.200s'", c->who, m->name);
}

static void check_shared(const struct doctor_case *c, const struct map *m)
{
    bool ours = ns_same(c->ns, &c->self->ns, NS_IPC);
    if (starts(m->name, "/SYSV") && (m->flags & MAPS_SHARES) && ours)
        fail(c, "sysv-shm", "it belongs to the whole machine, and processes outside may use it",
             "Start the program with `chrek run`, which gives it SysV memory of its own.",
             "has SysV shared memory of the whole machine attached");
    if (!is_deleted(m->name) || starts(m->name, "/SYSV") || starts(m->name, "/memfd:") ||
        starts(m->name, "/dev/zero") || starts(m->name, "/anon_hugepage") ||
        starts(m->name, "/[aio]"))
        return;
    char link[64];
    struct stat st;
    (void)snprintf(link, sizeof(link), "map_files/%" PRIx64 "-%" PRIx64, m->start, m->end);
    if (fstatat(c->task, link, &st, 0) == 0 && st.st_nlink == 0 &&
        (uint64_t)st.st_blocks * 512 > c->ghost_limit)
        doctor_add(c->report, DOCTOR_FAIL, "deleted-file", c->stat->pid,
                   "its content exists nowhere else, and is more than the limit for such files",
                   "Raise the limit with --ghost-limit.",
                   "%s has a deleted file of %" PRIu64 " MiB mapped: '%.200s'", c->who,
                   (uint64_t)st.st_blocks * 512 >> 20, m->name);
}

static void check_kept(const struct doctor_case *c, const struct map *m)
{
    if (m->flags & MAPS_HUGE || starts(m->name, "/anon_hugepage"))
        warn(c, "hugetlb", "a restore needs as many free huge pages as it has now",
             "Reserve them where it is restored: sysctl vm.nr_hugepages.",
             "uses reserved huge pages");
    if (m->flags & MAPS_SEALED && m->name[0] != '[')
        warn(c, "mseal", "after a restore the seals are gone, and areas could be changed again",
             NULL, "has sealed memory areas (mseal)");
}

void doctor_check_memory(const struct doctor_case *c)
{
    CLEANUP(maps_done) struct maps maps = {0};
    struct err err = ERR_INIT;
    enum rc rc = maps_read(c->task, !c->request->quick, &maps, &err);
    if (rc && rc != RC_NOT_FOUND)
        doctor_add(c->report, DOCTOR_WARN, "memory-unknown", c->stat->pid,
                   "nothing can be said about its memory", "Run chrek as root.", "%s: %s", c->who,
                   err.msg);
    for (size_t i = 0; !rc && i < maps.n; i++) {
        check_unsavable(c, &maps.list[i]);
        check_shared(c, &maps.list[i]);
        check_kept(c, &maps.list[i]);
    }
    if (c->status->locked_bytes && !doctor_has_cap(c->self, CAP_IPC_LOCK))
        warn(c, "locked-memory", "a restore may lock only as much memory as the limit allows",
             "Restore as root, or raise the limit (ulimit -l).", "has locked memory (mlock)");
}
