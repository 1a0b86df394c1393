/* What this machine can do. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/session.h"
#include "engine/doctor_priv.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define CRIU_LIMIT_NS (20 * CLOCK_S)
#define STORE_LITTLE ((uint64_t)1 << 30)   /* less free space than this is worth a warning */
#define STORE_NOTHING ((uint64_t)64 << 20) /* less than this does not hold a small process */
#define FUSE_MAGIC 0x65735546
#define SETTING_MAX 4096

struct machine {
    const struct doctor_machine *request;
    struct doctor_report *report;
    struct doctor_self self;
    uint64_t deadline;
};

static void ok(const struct machine *m, const char *id, const char *what)
{
    doctor_add(m->report, DOCTOR_OK, id, 0, NULL, NULL, "%s", what);
}

/* ---- kernel ---- */

static void check_kernel(const struct machine *m)
{
    struct utsname u;
    unsigned major = 0, minor = 0;
    (void)uname(&u);
    if (sscanf(u.release, "%u.%u", &major, &minor) != 2)
        doctor_add(m->report, DOCTOR_WARN, "kernel", 0,
                   "it cannot be told whether it is new enough", NULL,
                   "the kernel calls itself '%s'", u.release);
    else if (major < 5 || (major == 5 && minor < 9))
        doctor_add(m->report, DOCTOR_FAIL, "kernel", 0, "chrek needs Linux 5.9",
                   "Install a newer kernel; every supported release of Debian and Ubuntu has one.",
                   "the kernel is %s", u.release);
    else
        doctor_add(m->report, DOCTOR_OK, "kernel", 0, NULL, NULL, "Linux %s", u.release);
    if (strcmp(u.machine, "x86_64") != 0)
        doctor_add(m->report, DOCTOR_WARN, "architecture", 0, "chrek is tested on x86_64 only",
                   NULL, "the processor is %s", u.machine);
}

/* A setting of the kernel as a number; -1 when there is none. */
static long setting(const char *path)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    int value = -1;
    if (fs_read_file(AT_FDCWD, path, SETTING_MAX, &text, NULL) != RC_OK ||
        sscanf(buf_str(&text), "%9d", &value) != 1)
        return -1;
    return value;
}

static void check_settings(const struct machine *m)
{
    if (setting("/proc/sys/kernel/yama/ptrace_scope") == 3)
        doctor_add(m->report, DOCTOR_FAIL, "ptrace-scope", 0,
                   "no process may stop another one, which a checkpoint has to",
                   "Set kernel.yama.ptrace_scope to 0, 1 or 2 in /etc/sysctl.d and restart the "
                   "machine: it cannot be lowered while it runs.",
                   "kernel.yama.ptrace_scope is 3");
    else
        ok(m, "ptrace-scope", "processes may be traced");
    if (setting("/sys/fs/selinux/enforce") == 1)
        doctor_add(m->report, DOCTOR_WARN, "selinux", 0,
                   "SELinux may forbid what CRIU does to processes of other domains",
                   "If a checkpoint is denied: `ausearch -m avc -ts recent` shows by which rule.",
                   "SELinux is enforcing");
    if (access("/proc/self/ns/time", F_OK) < 0)
        doctor_add(m->report, DOCTOR_WARN, "time-namespace", 0,
                   "after a restore the monotonic clock jumps, and timers fire early or late",
                   "Use a kernel with CONFIG_TIME_NS.", "the kernel has no time namespaces");
    else
        ok(m, "time-namespace", "the monotonic clock goes on after a restore");
}

/* ---- rights ---- */

static const struct {
    const char *name, *why; /* what follows when it is missing */
    int cap;
    enum doctor_level level;
} rights[] = {
    {"CAP_SYS_ADMIN", "namespaces and mounts cannot be made", CAP_SYS_ADMIN, DOCTOR_FAIL},
    {"CAP_SYS_PTRACE", "processes of others cannot be stopped", CAP_SYS_PTRACE, DOCTOR_FAIL},
    {"CAP_SETUID", "processes cannot get their user back", CAP_SETUID, DOCTOR_FAIL},
    {"CAP_SETGID", "processes cannot get their groups back", CAP_SETGID, DOCTOR_FAIL},
    {"CAP_SETPCAP", "processes cannot get their rights back", CAP_SETPCAP, DOCTOR_FAIL},
    {"CAP_DAC_OVERRIDE", "files of other users cannot be opened", CAP_DAC_OVERRIDE, DOCTOR_FAIL},
    {"CAP_CHOWN", "files cannot get their owner back", CAP_CHOWN, DOCTOR_WARN},
    {"CAP_FOWNER", "files cannot get their mode back", CAP_FOWNER, DOCTOR_WARN},
    {"CAP_KILL", "processes of other users cannot be ended", CAP_KILL, DOCTOR_FAIL},
    {"CAP_SYS_CHROOT", "other mount namespaces cannot be entered", CAP_SYS_CHROOT, DOCTOR_FAIL},
    {"CAP_NET_ADMIN", "TCP connections cannot be kept (--tcp-established)", CAP_NET_ADMIN,
     DOCTOR_WARN},
    {"CAP_IPC_LOCK", "locked memory can be restored only up to a limit", CAP_IPC_LOCK, DOCTOR_WARN},
    {"CAP_SYS_RESOURCE",
     "limits cannot be raised again, and a CRIU other than the one that chrek ships cannot save "
     "processes of other users",
     CAP_SYS_RESOURCE, DOCTOR_WARN},
};

static void check_rights(const struct machine *m)
{
    unsigned missing = 0;
    if (m->self.status.uid[1] != 0 && !doctor_has_cap(&m->self, CAP_SYS_ADMIN)) {
        doctor_add(m->report, DOCTOR_FAIL, "root", 0,
                   "only root may stop, save and rebuild processes",
                   "Run chrek as root (sudo chrek ...).", "chrek runs as user %u",
                   (unsigned)m->self.status.uid[1]);
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(rights); i++) {
        if (doctor_has_cap(&m->self, rights[i].cap))
            continue;
        missing++;
        doctor_add(m->report, rights[i].level, "capability", 0, rights[i].why,
                   "Give chrek this capability (docker: --cap-add; Kubernetes: "
                   "securityContext.capabilities.add).",
                   "%s is missing", rights[i].name);
    }
    if (!missing)
        ok(m, "capability", "chrek has every capability that it needs");
    if (!m->self.initial_userns)
        doctor_add(m->report, DOCTOR_WARN, "user-namespace", 0,
                   "its root is not that of the machine: what is outside cannot be saved, and "
                   "seccomp filters cannot either",
                   "Run chrek outside of rootless containers.", "chrek runs in a user namespace");
    if (m->self.status.seccomp == 2)
        doctor_add(m->report, DOCTOR_WARN, "seccomp", 0,
                   "its filter may forbid system calls that CRIU needs",
                   "Run chrek with seccomp=unconfined if CRIU says `Operation not permitted`.",
                   "chrek itself is restricted by seccomp");
}

/* Whether a box can be made: its namespaces, tried in a child.  0 or an errno. */
static int try_namespaces(void)
{
    int status = 0;
    pid_t pid = fork();
    if (pid == 0) {
        int rc = unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC);
        _exit(rc < 0 ? errno : 0);
    }
    if (pid < 0)
        return errno;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

static void check_box(const struct machine *m)
{
    int failed = try_namespaces();
    if (failed)
        doctor_add(m->report, DOCTOR_FAIL, "namespaces", 0,
                   "`chrek run` and restores put programs into namespaces of their own",
                   "Run chrek as root; in a container give it CAP_SYS_ADMIN, and see that sysctl "
                   "user.max_pid_namespaces is not 0.",
                   "no PID, mount and IPC namespaces can be made: %s", strerror(failed));
    else
        ok(m, "namespaces", "PID, mount and IPC namespaces can be made");
}

/* ---- file systems ---- */

static void check_proc(const struct machine *m)
{
    char self[24] = "";
    ssize_t n = readlink("/proc/self", self, sizeof(self) - 1);
    if (n > 0)
        self[n] = '\0';
    char pid[24];
    (void)snprintf(pid, sizeof(pid), "%d", (int)getpid());
    if (strcmp(self, pid) != 0)
        doctor_add(m->report, DOCTOR_FAIL, "proc", 0,
                   "it shows the processes of another PID namespace",
                   "Mount a fresh one: mount -t proc proc /proc.",
                   "/proc is not that of this PID namespace");
    else if (access("/proc/sys/kernel/ns_last_pid", F_OK) < 0)
        doctor_add(m->report, DOCTOR_WARN, "proc", 0, "CRIU may not find all that it looks for",
                   "Mount /proc without hiding parts of it (docker: --security-opt "
                   "systempaths=unconfined).",
                   "/proc is not complete");
    else
        ok(m, "proc", "/proc is mounted and complete");
}

static void check_run(const struct machine *m)
{
    struct statfs s;
    if (statfs("/run", &s) < 0)
        doctor_add(m->report, DOCTOR_FAIL, "run", 0, "boxes are listed below it",
                   "Make the directory /run.", "there is no /run: %s", strerror(errno));
    else if (s.f_type != TMPFS_MAGIC)
        doctor_add(m->report, DOCTOR_WARN, "run", 0,
                   "CRIU tries out the kernel again at each call, which takes some 40 ms",
                   "Mount a tmpfs there: mount -t tmpfs tmpfs /run.", "/run is not a tmpfs");
    else
        ok(m, "run", "/run is a tmpfs");
}

/* The store's directory, or what is there of the way to it; the caller's (free). */
static char *existing_part(const char *path)
{
    char *p = mem_strdup(path);
    while (access(p, F_OK) < 0) {
        char *slash = strrchr(p, '/');
        if (!slash || slash == p) {
            free(p);
            return mem_strdup(slash ? "/" : ".");
        }
        *slash = '\0';
    }
    return p;
}

static void check_space(const struct machine *m, const char *store, const struct statvfs *s)
{
    uint64_t free_bytes = (uint64_t)s->f_bavail * s->f_frsize;
    bool nothing = free_bytes < STORE_NOTHING;
    if (free_bytes < STORE_LITTLE)
        doctor_add(m->report, nothing ? DOCTOR_FAIL : DOCTOR_WARN, "store-space", 0,
                   nothing ? "not even a small process fits"
                           : "a checkpoint takes as much as the memory that a program uses",
                   "Delete checkpoints (chrek ls, chrek delete), or name another store with "
                   "--store.",
                   "%" PRIu64 " MiB are free in the store '%s'", free_bytes >> 20, store);
    else
        doctor_add(m->report, DOCTOR_OK, "store-space", 0, NULL, NULL,
                   "%" PRIu64 " GiB are free in the store '%s'", free_bytes >> 30, store);
}

static void check_store(const struct machine *m)
{
    const char *store = m->request->store;
    struct statvfs s;
    struct statfs kind;
    if (!store)
        return;
    const char *directory = store_directory(store);
    if (!directory) {
        doctor_add(m->report, DOCTOR_WARN, "store", 0, "the doctor looks at this machine only",
                   "See whether it answers, and lets chrek in: chrek ls.",
                   "the store '%s' was not looked at", store);
        return;
    }
    CLEANUP(mem_freep) char *there = existing_part(directory);
    if (access(there, W_OK | X_OK) < 0 || statvfs(there, &s) < 0 || statfs(there, &kind) < 0) {
        doctor_add(m->report, DOCTOR_FAIL, "store", 0, "checkpoints cannot be written",
                   "Name a directory that chrek may write to with --store.",
                   "the store '%s' cannot be used: %s", store, strerror(errno));
        return;
    }
    if (kind.f_type == TMPFS_MAGIC)
        doctor_add(m->report, DOCTOR_WARN, "store", 0,
                   "checkpoints there take memory, and are lost when the machine restarts",
                   "Name a directory on a disk with --store, unless that is what you want.",
                   "the store '%s' lies in memory (tmpfs)", store);
    else if (kind.f_type == NFS_SUPER_MAGIC || kind.f_type == FUSE_MAGIC)
        doctor_add(m->report, DOCTOR_WARN, "store", 0,
                   "a program stands still while its memory is written there",
                   "Prefer a local disk if programs must not stand still for long.",
                   "the store '%s' lies on a network or user file system", store);
    else
        doctor_add(m->report, DOCTOR_OK, "store", 0, NULL, NULL, "the store '%s' can be written",
                   store);
    check_space(m, store, &s);
}

/* ---- CRIU ---- */

#define GET_CRIU                                                                                   \
    "Run `make criu` in the source of chrek, or install CRIU 4.2 or newer and name it "            \
    "in CHREK_CRIU."

static enum rc open_session(const struct machine *m, struct cr_session **out, struct err *err)
{
    struct cr_launch launch = {.criu = m->request->criu};
    return cr_session_open(&launch, out, err);
}

static bool check_criu_version(const struct machine *m)
{
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct cr_facts v;
    struct err err = ERR_INIT;
    enum rc rc = open_session(m, &s, &err);
    if (!rc)
        rc = cr_version(s, m->deadline, &v, &err);
    if (rc) {
        doctor_add(m->report, DOCTOR_FAIL, "criu", 0, "nothing can be saved without CRIU", GET_CRIU,
                   "CRIU does not run: %s", err.msg);
        return false;
    }
    if (v.major < 4 || (v.major == 4 && v.minor < 2)) {
        doctor_add(m->report, DOCTOR_FAIL, "criu", 0,
                   "older versions fail on TCP sockets and memory areas of newer kernels", GET_CRIU,
                   "CRIU is %d.%d.%d: '%s'", v.major, v.minor, v.sublevel, m->request->criu);
        return false;
    }
    doctor_add(m->report, DOCTOR_OK, "criu", 0, NULL, NULL, "CRIU %d.%d.%d: '%s'", v.major, v.minor,
               v.sublevel, m->request->criu);
    return true;
}

static void check_criu_check(const struct machine *m)
{
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct err err = ERR_INIT;
    enum rc rc = open_session(m, &s, &err);
    if (!rc)
        rc = cr_check(s, m->deadline, &err);
    if (rc)
        doctor_add(m->report, DOCTOR_FAIL, "criu-check", 0,
                   "the kernel lacks something, or does not let chrek use it",
                   "Run chrek as root outside of containers; `criu check --all` lists what is "
                   "missing.",
                   "CRIU is not content with this machine: %s", err.msg);
    else
        ok(m, "criu-check", "CRIU finds all that it needs in this kernel");
}

static void check_criu_features(const struct machine *m)
{
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct cr_features f;
    struct err err = ERR_INIT;
    enum rc rc = open_session(m, &s, &err);
    if (!rc)
        rc = cr_features(s, m->deadline, &f, &err);
    if (rc) {
        doctor_add(m->report, DOCTOR_WARN, "criu-features", 0, "it cannot be told what it can do",
                   NULL, "CRIU does not tell its features: %s", err.msg);
        return;
    }
    if (f.lazy_pages)
        ok(m, "userfaultfd", "a program can run before all of its memory is loaded");
    else
        doctor_add(m->report, DOCTOR_WARN, "userfaultfd", 0,
                   "a program can run only once all of its memory is loaded",
                   "Use a kernel with CONFIG_USERFAULTFD, and let chrek use it (CAP_SYS_PTRACE).",
                   "userfaultfd cannot be used");
    ok(m, "soft-dirty",
       f.mem_track ? "the kernel tracks written pages for CRIU (soft-dirty)"
                   : "the kernel does not track written pages for CRIU (soft-dirty); chrek does "
                     "not need it");
}

static void check_criu(const struct machine *m)
{
    if (!m->request->criu) {
        doctor_add(m->report, DOCTOR_FAIL, "criu", 0, "nothing can be saved without CRIU", GET_CRIU,
                   "there is no CRIU");
        return;
    }
    if (!check_criu_version(m) || !doctor_has_cap(&m->self, CAP_SYS_ADMIN))
        return;
    check_criu_check(m);
    check_criu_features(m);
}

enum rc doctor_check_machine(const struct doctor_machine *request, struct doctor_report *r,
                             struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    struct machine m = {.request = request, .report = r};
    m.deadline = request->deadline ? request->deadline : clock_now() + CRIU_LIMIT_NS;
    enum rc rc = task_open_proc(request->proc ? request->proc : "/proc", &proc, err);
    if (!rc)
        rc = doctor_self_read(&m.self, err);
    if (rc)
        return rc;
    check_kernel(&m);
    check_settings(&m);
    check_rights(&m);
    check_box(&m);
    check_proc(&m);
    check_run(&m);
    check_store(&m);
    check_criu(&m);
    if (doctor_machine_has_gpu())
        doctor_check_gpu(r, m.deadline);
    return RC_OK;
}
