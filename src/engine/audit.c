#include "engine/audit.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/ns.h"
#include "engine/audit_files.h"
#include "engine/bounds.h"
#include "engine/reach.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LABEL_MAX 4096

/* ---- rights ---- */

static bool has_cap(const struct task_status *s, unsigned cap)
{
    return s->caps[TASK_CAP_PRM] >> cap & 1;
}

static enum rc check_caps(const struct task_status *limit, const struct task_status *has,
                          struct err *err)
{
    static const char *const names[] = {[TASK_CAP_INH] = "inheritable",
                                        [TASK_CAP_PRM] = "permitted",
                                        [TASK_CAP_EFF] = "effective",
                                        [TASK_CAP_BND] = "bounding",
                                        [TASK_CAP_AMB] = "ambient"};
    for (int i = 0; i < TASK_CAP_COUNT_; i++) {
        uint64_t more = has->caps[i] & ~limit->caps[i == TASK_CAP_BND ? i : TASK_CAP_PRM];
        if (more)
            return err_set(err, RC_DENIED,
                           "it has capabilities (%s: %#" PRIx64
                           ") that this container does not have; give it the securityContext of "
                           "the checkpoint's container",
                           names[i], more);
    }
    return RC_OK;
}

static enum rc check_ids(const struct task_status *limit, const struct task_status *has,
                         struct err *err)
{
    for (int i = 0; i < 4; i++) {
        if (has->uid[i] != limit->uid[0] && !has_cap(limit, CAP_SETUID))
            return err_set(err, RC_DENIED,
                           "it runs as user %u, and this container as user %u: set runAsUser to "
                           "that of the checkpoint's container",
                           has->uid[i], limit->uid[0]);
        if (has->gid[i] != limit->gid[0] && !has_cap(limit, CAP_SETGID))
            return err_set(err, RC_DENIED,
                           "it runs as group %u, and this container as group %u: set runAsGroup to "
                           "that of the checkpoint's container",
                           has->gid[i], limit->gid[0]);
    }
    return RC_OK;
}

enum rc audit_rights(const struct task_status *limit, const struct task_status *has,
                     struct err *err)
{
    enum rc rc = check_ids(limit, has, err);
    if (!rc)
        rc = check_caps(limit, has, err);
    if (rc)
        return rc;
    if (limit->no_new_privs && !has->no_new_privs)
        return err_set(err, RC_DENIED,
                       "it may gain privileges and this container may not: set "
                       "allowPrivilegeEscalation to that of the checkpoint's container");
    if (limit->seccomp > has->seccomp || limit->seccomp_filters > has->seccomp_filters)
        return err_set(err, RC_DENIED,
                       "it has fewer filters of system calls than this container: set "
                       "seccompProfile to that of the checkpoint's container");
    return RC_OK;
}

/* Supplementary groups, and the label of a security module. */
struct label {
    char *groups, *lsm;
};

static void label_done(struct label *l)
{
    free(l->groups);
    free(l->lsm);
}

static enum rc read_label(int task, struct label *out, struct err *err)
{
    CLEANUP(buf_done) struct buf status = BUF_INIT;
    CLEANUP(buf_done) struct buf lsm = {.max = LABEL_MAX};
    enum rc rc = task_read(task, "status", &status, err);
    if (rc)
        return rc;
    const char *line = strstr(buf_str(&status), "\nGroups:");
    line = line ? line + strlen("\nGroups:") : "";
    out->groups = mem_asprintf("%.*s ", (int)strcspn(line, "\n"), line);
    if (task_read(task, "attr/current", &lsm, NULL) != RC_OK)
        lsm.len = 0; /* there is none */
    out->lsm = mem_asprintf("%.*s", (int)strcspn(buf_str(&lsm), "\n"), buf_str(&lsm));
    return RC_OK;
}

/* Each number of one list must be in the other, or be the container's own group. */
static enum rc check_groups(const struct task_status *limit, const struct label *may,
                            const struct label *has, struct err *err)
{
    char *save = NULL;
    CLEANUP(mem_freep) char *copy = mem_strdup(has->groups);
    if (has_cap(limit, CAP_SETGID))
        return RC_OK;
    for (char *g = strtok_r(copy, "\t ", &save); g; g = strtok_r(NULL, "\t ", &save)) {
        CLEANUP(mem_freep) char *word = mem_asprintf(" %s ", g);
        CLEANUP(mem_freep) char *first = mem_asprintf("\t%s ", g);
        CLEANUP(mem_freep) char *own = mem_asprintf("%u", limit->gid[0]);
        if (!strstr(may->groups, word) && !strstr(may->groups, first) && strcmp(g, own) != 0)
            return err_set(err, RC_DENIED,
                           "it is in group %s, and this container is not: set fsGroup and "
                           "supplementalGroups to those of the checkpoint's container",
                           g);
    }
    return RC_OK;
}

/* ---- mounts ---- */

static const char *const restrictions[] = {"ro", "nosuid", "nodev", "noexec"};

/* What a mount with this root shows at `below`. */
static char *part_of(const char *root, const char *below)
{
    return mem_asprintf("%s%s", strcmp(root, "/") == 0 && *below ? "" : root, below);
}

static const struct mount *mount_at(const struct mounts *m, const char *target)
{
    const struct mount *found = NULL;
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->list[i].target, target) == 0)
            found = &m->list[i];
    return found;
}

static enum rc check_mount(const struct mounts *limit, const struct mount *has, struct err *err)
{
    const struct mount *from = mounts_of_path(limit, has->target);
    size_t len = from && strcmp(from->target, "/") != 0 ? strlen(from->target) : 0;
    const char *below = has->target + (strcmp(has->target, "/") == 0 ? 1 : len);
    CLEANUP(mem_freep) char *expected = from ? part_of(from->root, below) : NULL;
    if (!from || from->major != has->major || from->minor != has->minor ||
        strcmp(expected, has->root) != 0)
        return err_set(err, RC_DENIED, "at '%.200s' it has another mount than this container",
                       has->target);
    for (size_t i = 0; i < ARRAY_LEN(restrictions); i++)
        if (mounts_has_option(from->options, restrictions[i]) &&
            !mounts_has_option(has->options, restrictions[i]))
            return err_set(err, RC_DENIED, "its mount at '%.200s' is not '%s', as the container's",
                           has->target, restrictions[i]);
    return RC_OK;
}

static bool lies_on_root(const struct mounts *m, const struct mount *mount)
{
    const struct mount *root = mounts_root(m), *parent = mounts_by_id(m, mount->parent);
    return mount == root || parent == root;
}

/* The mount that a mount point lies on: the longest target above it. */
static const struct mount *below(const struct mounts *m, const struct mount *mount)
{
    const struct mount *found = NULL;
    for (size_t i = 0; i < m->n; i++) {
        const char *target = m->list[i].target;
        size_t len = strcmp(target, "/") == 0 ? 0 : strlen(target);
        bool above = &m->list[i] != mount && strncmp(mount->target, target, len) == 0 &&
                     mount->target[len] == '/';
        if (above && (!found || len >= strlen(found->target)))
            found = &m->list[i];
    }
    return found;
}

/* What is seen at a path is what is mounted there: nothing lies on something else, or under it. */
static enum rc check_order(const struct mounts *has, const struct mount *mount, struct err *err)
{
    const struct mount *under = below(has, mount);
    if (mount_at(has, mount->target) != mount)
        return err_set(err, RC_DENIED, "at '%.200s' it has several mounts", mount->target);
    if (mount != mounts_root(has) && (!under || under->id != mount->parent))
        return err_set(err, RC_DENIED, "its mount at '%.200s' is hidden by another", mount->target);
    return RC_OK;
}

enum rc audit_mounts(const struct mounts *limit, const struct mounts *has, struct err *err)
{
    for (size_t i = 0; i < has->n; i++) {
        enum rc rc = check_mount(limit, &has->list[i], err);
        if (!rc)
            rc = check_order(has, &has->list[i], err);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < limit->n; i++)
        if (!lies_on_root(limit, &limit->list[i]) && !mount_at(has, limit->list[i].target))
            return err_set(err, RC_DENIED,
                           "it does not have the mount at '%.200s' that this container has",
                           limit->list[i].target);
    return RC_OK;
}

/* ---- the tree ---- */

struct audit {
    const struct place *place;
    int proc;
    struct task_status limit;
    struct label label;
    struct ns_set theirs, ours, root; /* the container's, our own, the restored root's */
    struct mounts mounts;             /* of the root */
    char *cgroups;                    /* the text of the container's */
    struct bounds bounds;
    struct reach reach;
    struct audit_files files;
    struct task_stat *tree;
    size_t n_tree;
};

static void audit_done(struct audit *a)
{
    fd_closep(&a->proc);
    label_done(&a->label);
    mounts_done(&a->mounts);
    reach_done(&a->reach);
    fd_closep(&a->files.root);
    free(a->cgroups);
    free(a->tree);
}

static enum rc check_thread(const struct audit *a, int task, struct err *err)
{
    struct task_status status;
    CLEANUP(label_done) struct label label = {NULL, NULL};
    enum rc rc = task_status_read(task, &status, err);
    if (!rc)
        rc = audit_rights(&a->limit, &status, err);
    if (!rc)
        rc = read_label(task, &label, err);
    if (!rc)
        rc = check_groups(&a->limit, &a->label, &label, err);
    if (!rc && strcmp(label.lsm, a->label.lsm) != 0)
        rc = err_set(err, RC_DENIED,
                     "it has the security label '%.80s', and this container '%.80s': set the "
                     "profile to that of the checkpoint's container",
                     label.lsm, a->label.lsm);
    return rc;
}

static enum rc check_threads(const struct audit *a, int task, struct err *err)
{
    CLEANUP(mem_freep) pid_t *threads = NULL;
    size_t n = 0;
    enum rc rc = task_threads(task, &threads, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        char path[32];
        (void)snprintf(path, sizeof(path), "task/%d", (int)threads[i]);
        CLEANUP(fd_closep) int thread = sys_openat(task, path, O_RDONLY | O_DIRECTORY, 0);
        rc = thread < 0 ? err_sys(err, "open '%s'", path) : check_thread(a, thread, err);
    }
    return rc;
}

/* What it has of its own may be anything; what is not its own must be the container's, not ours. */
static enum rc check_namespaces(const struct audit *a, int task, struct err *err)
{
    static const enum ns_kind same[] = {NS_USER, NS_NET, NS_CGROUP}, own[] = {NS_UTS, NS_IPC};
    static const enum ns_kind tree[] = {NS_MNT, NS_PID};
    struct ns_set set;
    enum rc rc = ns_read(task, &set, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        if (!ns_same(&set, &a->theirs, same[i]))
            return err_set(err, RC_DENIED, "its %s namespace is not the container's",
                           ns_name(same[i]));
    for (size_t i = 0; i < ARRAY_LEN(own); i++)
        if (ns_same(&set, &a->ours, own[i]) && !ns_same(&set, &a->theirs, own[i]))
            return err_set(err, RC_DENIED, "its %s namespace is the node's", ns_name(own[i]));
    for (size_t i = 0; i < ARRAY_LEN(tree); i++)
        if (!ns_same(&set, &a->root, tree[i]))
            return err_set(err, RC_DENIED, "a process of it has a %s namespace of its own",
                           ns_name(tree[i]));
    return RC_OK;
}

/* The control groups say how much of the machine it gets. */
static enum rc check_groups_of_control(const struct audit *a, int task, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, "cgroup", &text, err);
    if (!rc && strcmp(buf_str(&text), a->cgroups) != 0)
        rc = err_set(err, RC_DENIED, "it is not in the control groups of this container");
    return rc;
}

static enum rc check_process(const struct audit *a, pid_t pid, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = task_open(a->proc, pid, &task, err);
    if (!rc)
        rc = check_threads(a, task, err);
    if (!rc)
        rc = check_namespaces(a, task, err);
    if (!rc)
        rc = check_groups_of_control(a, task, err);
    if (!rc)
        rc = bounds_check(&a->bounds, task, err);
    return rc ? rc : audit_files(&a->files, task, pid, err);
}

static enum rc read_limit(struct audit *a, struct err *err)
{
    CLEANUP(fd_closep) int self = -1;
    enum rc rc = task_open_proc("/proc", &a->proc, err);
    if (!rc)
        rc = task_open(a->proc, getpid(), &self, err);
    if (!rc)
        rc = ns_read(self, &a->ours, err);
    if (!rc)
        rc = task_status_read(a->place->task, &a->limit, err);
    if (!rc)
        rc = read_label(a->place->task, &a->label, err);
    /* Last: who has gone to a user namespace of its own, where it has every right, does not come
     * back. */
    return rc ? rc : ns_read(a->place->task, &a->theirs, err);
}

/* ---- what the container's first process could do ---- */

struct lookup {
    int net; /* the network namespace; -1: our own */
    unsigned port;
    enum rc rc;
    struct err err;
};

/* In a thread of its own, which alone goes into the namespace. */
static void *look_up_port(void *arg)
{
    struct lookup *l = arg;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (l->net >= 0 && setns(l->net, CLONE_NEWNET) < 0)
        l->rc = err_sys(&l->err, "join the container's network");
    else
        l->rc = fs_read_file(AT_FDCWD, "/proc/sys/net/ipv4/ip_unprivileged_port_start", LABEL_MAX,
                             &text, &l->err);
    if (!l->rc && sscanf(buf_str(&text), "%u", &l->port) != 1)
        l->rc = err_set(&l->err, RC_CORRUPT, "the lowest port for everybody makes no sense");
    return NULL;
}

static enum rc read_lowest_port(const struct place *p, unsigned *out, struct err *err)
{
    pthread_t thread;
    struct lookup l = {.net = p->ns[NS_NET], .err = ERR_INIT};
    if (pthread_create(&thread, NULL, look_up_port, &l) != 0)
        return err_sys(err, "start a thread");
    (void)pthread_join(thread, NULL);
    *out = l.port;
    return l.rc ? err_set(err, l.rc, "%s", l.err.msg) : RC_OK;
}

static enum rc read_rules(struct audit *a, struct err *err)
{
    CLEANUP(buf_done) struct buf cgroups = BUF_INIT;
    a->files.caps = a->limit.caps[TASK_CAP_PRM];
    enum rc rc = task_read(a->place->task, "cgroup", &cgroups, err);
    if (!rc)
        a->cgroups = mem_strdup(buf_str(&cgroups));
    if (!rc)
        rc = bounds_read(a->place->task, &a->limit, &a->bounds, err);
    if (!rc)
        rc = reach_make(&a->limit, a->label.groups, &a->reach, err);
    if (!rc)
        rc = audit_memory_dev(&a->files.memory, err);
    return rc ? rc : read_lowest_port(a->place, &a->files.lowest_port, err);
}

static enum rc read_root(struct audit *a, pid_t root, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(mounts_done) struct mounts limit = {0};
    enum rc rc = task_open(a->proc, root, &task, err);
    if (!rc)
        rc = ns_read(task, &a->root, err);
    if (!rc && (!ns_differ(&a->root, &a->ours, NS_MNT) || !ns_differ(&a->root, &a->ours, NS_PID)))
        rc = err_set(err, RC_DENIED, "it is in our own namespaces");
    if (!rc)
        rc = mounts_read(task, &a->mounts, err);
    if (!rc)
        rc = mounts_read(a->place->task, &limit, err);
    if (!rc)
        rc = audit_mounts(&limit, &a->mounts, err);
    if (!rc && (a->files.root = sys_openat(task, "root", O_PATH | O_DIRECTORY, 0)) < 0)
        rc = err_sys(err, "open its root directory");
    if (!rc)
        rc = task_tree(a->proc, root, &a->tree, &a->n_tree, err);
    if (rc)
        return rc;
    a->files.mounts = &a->mounts;
    a->files.reach = &a->reach;
    a->files.tree = a->tree;
    a->files.n_tree = a->n_tree;
    return RC_OK;
}

enum rc audit_tree(const struct place *p, pid_t root, struct err *err)
{
    CLEANUP(audit_done) struct audit a = {.place = p, .proc = -1, .files = {.root = -1}};
    enum rc rc = read_limit(&a, err);
    if (!rc)
        rc = read_rules(&a, err);
    if (!rc)
        rc = read_root(&a, root, err);
    for (size_t i = 0; !rc && i < a.n_tree; i++)
        if (a.tree[i].state != 'Z')
            rc = check_process(&a, a.tree[i].pid, err);
    return rc ? err_ctx(err, rc, "the checkpoint does not fit this container") : RC_OK;
}
