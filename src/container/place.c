#include "container/place.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "container/cgroup.h"
#include "container/task.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FDINFO_MAX 4096
#define PROGRAM "/sbin/criu" /* below the prefix, whose folder is mounted under this name: */
#define FOLDER "/criu"

/* ---- opening ---- */

enum rc place_pid_of(int pidfd, pid_t *out, struct err *err)
{
    char path[48];
    uint64_t pid = 0;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    enum rc rc = fs_read_file(AT_FDCWD, path, FDINFO_MAX, &text, err);
    if (rc)
        return rc;
    char *line = strstr(buf_str(&text), "\nPid:\t");
    if (!line)
        return err_set(err, RC_INVALID, "a descriptor that holds no process");
    line += strlen("\nPid:\t");
    line[strcspn(line, "\n")] = '\0';
    if (num_parse_u64(line, 1, INT_MAX, &pid, NULL) != RC_OK)
        return err_set(err, RC_NOT_FOUND, "the process has ended");
    *out = (pid_t)pid;
    return RC_OK;
}

/* The folder of the process in /proc; it is bound to the process that the pidfd holds, because that
 * one still lives afterwards. */
static enum rc open_task(struct place *p, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    enum rc rc = place_pid_of(p->pidfd, &p->pid, err);
    if (!rc)
        rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, p->pid, &p->task, err);
    if (rc)
        return rc;
    if (syscall(SYS_pidfd_send_signal, p->pidfd, 0, NULL, 0) < 0)
        return errno == ESRCH ? err_set(err, RC_NOT_FOUND, "the process has ended")
                              : err_sys(err, "look for the process");
    p->root = sys_openat(p->task, "root", O_PATH | O_DIRECTORY, 0);
    return p->root < 0 ? err_sys(err, "open the container's root directory") : RC_OK;
}

static enum rc open_namespaces(struct place *p, struct err *err)
{
    static const enum ns_kind kinds[] = {NS_MNT, NS_NET, NS_UTS, NS_IPC, NS_CGROUP, NS_PID};
    struct ns_set theirs, ours;
    struct task_status status;
    CLEANUP(fd_closep) int self = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    if (self < 0)
        return err_sys(err, "open /proc/self");
    enum rc rc = ns_read(p->task, &theirs, err);
    if (!rc)
        rc = ns_read(self, &ours, err);
    if (!rc)
        rc = task_status_read(p->task, &status, err);
    if (rc)
        return rc;
    if (task_inner_pid(&status) != 1 || !ns_differ(&theirs, &ours, NS_PID) ||
        !ns_differ(&theirs, &ours, NS_MNT))
        return err_set(err, RC_INVALID, "process %d is not the first process of a container",
                       (int)p->pid);
    if (!ns_same(&theirs, &ours, NS_USER))
        return err_set(err, RC_UNSUPPORTED,
                       "the container has a user namespace of its own (hostUsers: false)");
    for (size_t i = 0; !rc && i < ARRAY_LEN(kinds); i++)
        if (!ns_same(&theirs, &ours, kinds[i]))
            rc = ns_open(p->task, kinds[i], &p->ns[kinds[i]], err);
    return rc;
}

static bool is_in(const struct cgroups *c, const struct cgroup *g)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].hierarchy == g->hierarchy)
            return strcmp(c->list[i].path, g->path) == 0;
    return false;
}

/* Of a hierarchy that is not mounted here nothing can be joined, and none is used to limit. */
static enum rc open_group(struct place *p, int self, const struct cgroup *g, struct err *err)
{
    CLEANUP(fd_closep) int dir = -1;
    struct err why = ERR_INIT;
    enum rc rc = cgroup_open(self, g, &dir, &why);
    if (rc == RC_NOT_FOUND && g->hierarchy != 0)
        return RC_OK;
    if (rc)
        return err_set(err, rc, "%s", why.msg);
    if (p->n_groups == PLACE_GROUPS_MAX)
        return err_set(err, RC_TOO_BIG, "more than %d control groups", PLACE_GROUPS_MAX);
    int fd = sys_openat(dir, "cgroup.procs", O_WRONLY, 0);
    if (fd < 0)
        return err_sys(err, "open cgroup.procs of '%s'", g->path);
    p->groups[p->n_groups++] = fd;
    return RC_OK;
}

static enum rc open_groups(struct place *p, struct err *err)
{
    CLEANUP(cgroups_done) struct cgroups theirs = {0};
    CLEANUP(cgroups_done) struct cgroups ours = {0};
    CLEANUP(fd_closep) int self = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    if (self < 0)
        return err_sys(err, "open /proc/self");
    enum rc rc = cgroups_read(p->task, &theirs, err);
    if (!rc)
        rc = cgroups_read(self, &ours, err);
    for (size_t i = 0; !rc && i < theirs.n; i++)
        if (!is_in(&ours, &theirs.list[i]))
            rc = open_group(p, self, &theirs.list[i], err);
    return rc ? err_ctx(err, rc, "join the container's control groups") : RC_OK;
}

/* CRIU runs from a copy of its folder's mount, so it must have all it needs in there. */
static enum rc find_criu(struct place *p, const char *criu, struct err *err)
{
    CLEANUP(mem_freep) char *path = realpath(criu, NULL);
    size_t len = path ? strlen(path) : 0, tail = sizeof(PROGRAM) - 1;
    if (!path)
        return err_sys(err, "CRIU '%.200s'", criu);
    bool fits = len > tail && strcmp(path + len - tail, PROGRAM) == 0;
    CLEANUP(mem_freep) char *prefix = mem_asprintf("%.*s", fits ? (int)(len - tail) : 0, path);
    CLEANUP(mem_freep) char *loader = mem_asprintf("%s/lib/ld.so", prefix);
    if (!fits || access(loader, X_OK) < 0)
        return err_set(err, RC_NOT_FOUND,
                       "CRIU '%.200s' does not bring its libraries along: use the one that is "
                       "installed with chrek",
                       criu);
    p->prefix = STEAL(prefix);
    p->program = mem_strdup(FOLDER PROGRAM);
    return RC_OK;
}

enum rc place_open(int pidfd, const char *criu, struct place *out, struct err *err)
{
    CLEANUP(place_done) struct place p = PLACE_NOTHING;
    for (int i = 0; i < NS_COUNT_; i++)
        p.ns[i] = -1;
    p.pidfd = pidfd;
    enum rc rc = open_task(&p, err);
    if (!rc)
        rc = open_namespaces(&p, err);
    if (!rc)
        rc = open_groups(&p, err);
    if (!rc)
        rc = find_criu(&p, criu, err);
    if (rc) {
        p.pidfd = -1;
        return rc;
    }
    *out = p;
    p = (struct place)PLACE_NOTHING;
    return RC_OK;
}

void place_done(struct place *p)
{
    for (int i = 0; p->pid && i < NS_COUNT_; i++)
        fd_closep(&p->ns[i]);
    for (size_t i = 0; i < p->n_groups; i++)
        fd_closep(&p->groups[i]);
    fd_closep(&p->pidfd);
    fd_closep(&p->task);
    fd_closep(&p->root);
    free(p->prefix);
    free(p->program);
    *p = (struct place)PLACE_NOTHING;
}

/* ---- entering: system calls only ---- */

/* What is to be mounted in CRIU's root directory. */
struct parts {
    int criu, null;      /* ours */
    int root, all, proc; /* the container's */
    int top;             /* the new root directory itself */
};

static int copy_mount(int dirfd, const char *path, unsigned flags)
{
    return open_tree(dirfd, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | flags);
}

/* Nothing that is mounted on a copy appears on the original. */
static int set_apart(int mount, uint64_t attributes)
{
    struct mount_attr a = {.attr_set = attributes, .propagation = MS_PRIVATE};
    return mount_setattr(mount, "", AT_EMPTY_PATH | AT_RECURSIVE, &a, sizeof(a));
}

static int take_ours(const struct place *p, struct parts *t)
{
    t->criu = copy_mount(AT_FDCWD, p->prefix, 0);
    t->null = copy_mount(AT_FDCWD, "/dev/null", 0);
    if (t->criu < 0 || t->null < 0 ||
        set_apart(t->criu, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV) < 0)
        return -1;
    return set_apart(t->null, 0);
}

static bool is_proc(int fd)
{
    struct statfs fs;
    return fstatfs(fd, &fs) == 0 && fs.f_type == PROC_SUPER_MAGIC;
}

/* In the container's mount namespace: mounts can be copied only there. */
static int take_theirs(const struct place *p, struct parts *t)
{
    if (setns(p->ns[NS_MNT], CLONE_NEWNS) < 0)
        return -1;
    t->root = copy_mount(p->root, "", AT_EMPTY_PATH);
    t->all = copy_mount(p->root, "", AT_EMPTY_PATH | AT_RECURSIVE);
    t->proc = copy_mount(p->root, "proc", AT_SYMLINK_NOFOLLOW);
    if (t->proc >= 0 && !is_proc(t->proc)) /* of a root that the container has made up */
        return errno = EINVAL, -1;
    if (t->root < 0 || t->all < 0 || t->proc < 0)
        return -1;
    return set_apart(t->root, 0) < 0 || set_apart(t->all, 0) < 0 || set_apart(t->proc, 0) < 0 ? -1
                                                                                              : 0;
}

static int make_top(void)
{
    int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), top = -1;
    if (fs >= 0 && fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0) == 0 &&
        fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
        top = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID);
    return top;
}

static int attach(int mount, int top, const char *name)
{
    return move_mount(mount, "", top, name, MOVE_MOUNT_F_EMPTY_PATH);
}

static int fill_top(const struct parts *t)
{
    static const char *const folders[] = {"root", "all", "proc", "criu", "dev", "tmp", "run"};
    for (size_t i = 0; i < ARRAY_LEN(folders); i++)
        if (mkdirat(t->top, folders[i], 0755) < 0)
            return -1;
    if (mknodat(t->top, "dev/null", S_IFREG | 0644, 0) < 0)
        return -1;
    return attach(t->root, t->top, "root") < 0 || attach(t->all, t->top, "all") < 0 ||
                   attach(t->proc, t->top, "proc") < 0 || attach(t->criu, t->top, "criu") < 0 ||
                   attach(t->null, t->top, "dev/null") < 0
               ? -1
               : 0;
}

/* A mount namespace with nothing in it but the new root directory. */
static int move_in(struct parts *t)
{
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    t->top = make_top();
    if (t->top < 0 || move_mount(t->top, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 ||
        fill_top(t) < 0 || fchdir(t->top) < 0)
        return -1;
    if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
        return -1;
    return chdir("/");
}

static int join_groups(const struct place *p)
{
    for (size_t i = 0; i < p->n_groups; i++)
        if (write(p->groups[i], "0", 1) != 1)
            return -1;
    return 0;
}

int place_enter(void *arg)
{
    static const enum ns_kind kinds[] = {NS_CGROUP, NS_NET, NS_UTS, NS_IPC, NS_PID};
    const struct place *p = arg;
    struct parts t = {-1, -1, -1, -1, -1, -1};
    if (join_groups(p) < 0 || take_ours(p, &t) < 0 || take_theirs(p, &t) < 0 || move_in(&t) < 0)
        return -errno;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (p->ns[kinds[i]] >= 0 && setns(p->ns[kinds[i]], ns_flag(kinds[i])) < 0)
            return -errno;
    return 0;
}
