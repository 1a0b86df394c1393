#include "engine/doctor.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/doctor_priv.h"
#include "engine/engine.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *doctor_level_name(enum doctor_level level)
{
    static const char *const names[DOCTOR_LEVEL_COUNT_] = {"ok", "warn", "fail"};
    return names[level];
}

void doctor_report_done(struct doctor_report *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->list[i].what);
        free(r->list[i].why);
        free(r->list[i].remedy);
    }
    free(r->list);
    *r = (struct doctor_report)DOCTOR_REPORT_INIT;
}

enum doctor_level doctor_worst(const struct doctor_report *r)
{
    enum doctor_level worst = DOCTOR_OK;
    for (size_t i = 0; i < r->n; i++)
        if (r->list[i].level > worst)
            worst = r->list[i].level;
    return worst;
}

const struct doctor_finding *doctor_first(const struct doctor_report *r, enum doctor_level level)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->list[i].level == level)
            return &r->list[i];
    return NULL;
}

static struct doctor_finding *find_same(const struct doctor_report *r, const char *id, pid_t pid)
{
    for (size_t i = r->n; pid && i-- > 0;)
        if (r->list[i].pid == pid && strcmp(r->list[i].id, id) == 0)
            return &r->list[i];
    return NULL;
}

void doctor_add(struct doctor_report *r, enum doctor_level level, const char *id, pid_t pid,
                const char *why, const char *remedy, const char *what, ...)
{
    char text[1024];
    struct doctor_finding *same = find_same(r, id, pid);
    if (same) {
        same->more++;
        return;
    }
    va_list ap;
    va_start(ap, what);
    (void)vsnprintf(text, sizeof(text), what, ap);
    va_end(ap);
    r->list = mem_realloc(r->list, (r->n + 1) * sizeof(*r->list));
    r->list[r->n++] = (struct doctor_finding){.level = level,
                                              .id = id,
                                              .pid = pid,
                                              .what = mem_strdup(text),
                                              .why = mem_strdup(why),
                                              .remedy = mem_strdup(remedy)};
}

void doctor_finish(struct doctor_report *r, size_t from)
{
    for (size_t i = from; i < r->n; i++) {
        struct doctor_finding *f = &r->list[i];
        if (!f->more)
            continue;
        char *what = mem_asprintf("%s (and %u more)", f->what, f->more);
        free(f->what);
        f->what = what;
    }
}

/* ---- ourselves ---- */

#define INITIAL_USERNS 0xEFFFFFFDU /* the kernel's PROC_USER_INIT_INO */

enum rc doctor_self_read(struct doctor_self *out, struct err *err)
{
    CLEANUP(fd_closep) int task = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    struct doctor_self self;
    if (task < 0)
        return err_sys(err, "open /proc/self");
    enum rc rc = task_status_read(task, &self.status, err);
    if (!rc)
        rc = ns_read(task, &self.ns, err);
    if (rc)
        return rc;
    self.initial_userns = !self.ns.id[NS_USER].ino || self.ns.id[NS_USER].ino == INITIAL_USERNS;
    *out = self;
    return RC_OK;
}

bool doctor_has_cap(const struct doctor_self *self, int cap)
{
    return (self->status.caps[TASK_CAP_EFF] >> cap) & 1;
}

bool doctor_is_forbidden(const struct doctor_case *c)
{
    return c->status->uid[0] != c->self->status.uid[0] && !doctor_has_cap(c->self, CAP_SYS_PTRACE);
}

/* ---- a tree ---- */

bool doctor_in_tree(const struct doctor_case *c, pid_t pid)
{
    for (size_t i = 0; i < c->n_tree; i++)
        if (c->tree[i].pid == pid)
            return true;
    return false;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

bool doctor_has_id(const struct doctor_ids *ids, uint64_t id)
{
    return ids->n && bsearch(&id, ids->list, ids->n, sizeof(id), by_number);
}

static void sort_ids(struct doctor_ids *ids)
{
    if (ids->n)
        qsort(ids->list, ids->n, sizeof(*ids->list), by_number);
}

/* What is read before anything is judged: a connection is inside the tree only if some process of
 * the tree holds the other end. */
struct look {
    int *tasks; /* -1 = it has ended */
    bool *denied;
    struct fdinfo_list *fds;
    struct doctor_tree_facts facts;
    size_t n;
};

static void look_done(struct look *l)
{
    for (size_t i = 0; i < l->n; i++) {
        fd_closep(&l->tasks[i]);
        fdinfo_done(&l->fds[i]);
    }
    free(l->tasks);
    free(l->denied);
    free(l->fds);
    free(l->facts.sockets.list);
    free(l->facts.mounts.list);
    free(l->facts.pipes.list);
    free(l->facts.fifos.list);
}

static void note(struct doctor_ids *ids, const struct fdinfo_list *fds, enum fd_kind kind)
{
    ids->list = mem_realloc(ids->list, (ids->n + fds->n + 1) * sizeof(*ids->list));
    for (size_t i = 0; i < fds->n; i++) {
        const struct fdinfo *f = &fds->list[i];
        if (f->kind == kind && (kind == FD_SOCKET || (f->info.flags & O_ACCMODE) != O_WRONLY))
            ids->list[ids->n++] = f->ino;
    }
}

/* Processes mostly share one mount namespace, which is read once. */
static void note_mounts(struct doctor_ids *ids, int task, struct ns_set *last)
{
    CLEANUP(mounts_done) struct mounts mounts = {0};
    struct ns_set ns;
    if (ns_read(task, &ns, NULL) != RC_OK || ns_same(&ns, last, NS_MNT) ||
        mounts_read(task, &mounts, NULL) != RC_OK)
        return;
    *last = ns;
    ids->list = mem_realloc(ids->list, (ids->n + mounts.n + 1) * sizeof(*ids->list));
    for (size_t i = 0; i < mounts.n; i++)
        ids->list[ids->n++] = (uint64_t)mounts.list[i].id;
}

static enum rc look_at(int proc, const struct task_stat *tree, size_t n, struct look *l,
                       struct err *err)
{
    struct ns_set last = {0};
    l->n = n;
    l->tasks = mem_alloc(n * sizeof(*l->tasks));
    l->denied = mem_zalloc(n * sizeof(*l->denied));
    l->fds = mem_zalloc(n * sizeof(*l->fds));
    for (size_t i = 0; i < n; i++)
        l->tasks[i] = -1;
    for (size_t i = 0; i < n; i++) {
        enum rc rc = task_open(proc, tree[i].pid, &l->tasks[i], err);
        if (!rc && tree[i].state != 'Z')
            rc = fdinfo_read(l->tasks[i], &l->fds[i], err);
        l->denied[i] = rc == RC_DENIED;
        if (rc && rc != RC_NOT_FOUND && rc != RC_DENIED)
            return err_ctx(err, rc, "look at process %d (%s)", (int)tree[i].pid, tree[i].name);
        note(&l->facts.sockets, &l->fds[i], FD_SOCKET);
        note(&l->facts.pipes, &l->fds[i], FD_PIPE);
        note(&l->facts.fifos, &l->fds[i], FD_FIFO);
        if (l->tasks[i] >= 0)
            note_mounts(&l->facts.mounts, l->tasks[i], &last);
    }
    sort_ids(&l->facts.sockets);
    sort_ids(&l->facts.mounts);
    sort_ids(&l->facts.pipes);
    sort_ids(&l->facts.fifos);
    return RC_OK;
}

static bool holds_gpu(const struct fdinfo_list *fds)
{
    for (size_t i = 0; i < fds->n; i++)
        if (strncmp(fds->list[i].target, "/dev/nvidia", 11) == 0)
            return true;
    return false;
}

static bool maps_cuda(int task)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    return task_read(task, "maps", &text, NULL) == RC_OK && strstr(buf_str(&text), "/libcuda.so");
}

/* Check one process; one that has ended meanwhile has nothing to say. */
static void check_one(const struct doctor_case *all, const struct look *l, size_t i)
{
    struct task_status status;
    struct ns_set ns = {0};
    struct doctor_case c = *all;
    c.task = l->tasks[i];
    c.stat = &c.tree[i];
    c.status = &status;
    c.ns = &ns;
    if (c.task < 0 || task_status_read(c.task, &status, NULL) != RC_OK)
        return;
    enum rc rc = c.stat->state == 'Z' ? RC_NOT_FOUND : ns_read(c.task, &ns, NULL);
    (void)snprintf(c.who, sizeof(c.who), "process %d (%s)", (int)c.stat->pid, status.name);
    doctor_check_task(&c);
    if (status.kernel_thread || task_is_kernel_thread(c.stat) || c.stat->state == 'Z')
        return;
    if ((l->denied[i] || rc == RC_DENIED) && !doctor_is_forbidden(&c))
        doctor_add(c.report, DOCTOR_FAIL, "denied", c.tree[0].pid, /* told once for a tree */
                   "chrek has fewer rights than that process",
                   "Run chrek as root, with at least the capabilities that the process has.",
                   "%s may not be looked at", c.who);
    if (l->denied[i] || rc)
        return;
    c.cuda = holds_gpu(&l->fds[i]) && maps_cuda(c.task);
    doctor_check_memory(&c);
    doctor_check_files(&c, &l->fds[i], &l->facts);
}

static void say_all_is_well(const struct doctor_case *c, size_t from)
{
    for (size_t i = from; i < c->report->n; i++)
        if (c->report->list[i].level == DOCTOR_FAIL)
            return;
    doctor_add(c->report, DOCTOR_OK, "process", c->tree[0].pid, NULL, NULL,
               c->n_tree > 1 ? "process %d (%s) and its %zu descendants hold nothing that cannot "
                               "be saved"
                             : "process %d (%s) holds nothing that cannot be saved",
               (int)c->tree[0].pid, c->tree[0].name, c->n_tree - 1);
}

enum rc doctor_check_process(const struct doctor_process *request, struct doctor_report *r,
                             struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(mem_freep) struct task_stat *tree = NULL;
    CLEANUP(look_done) struct look look = {0};
    struct doctor_self self;
    struct ns_set root_ns = {0};
    struct doctor_case c = {.request = request, .self = &self, .report = r, .root_ns = &root_ns};
    size_t from = r->n;
    enum rc rc = task_open_proc(request->proc ? request->proc : "/proc", &proc, err);
    if (!rc)
        rc = doctor_self_read(&self, err);
    if (!rc)
        rc = task_tree(proc, request->pid, &tree, &c.n_tree, err);
    if (!rc)
        rc = look_at(proc, tree, c.n_tree, &look, err);
    if (!rc && look.tasks[0] < 0)
        rc = err_set(err, RC_NOT_FOUND, "no process %d", (int)request->pid);
    if (rc)
        return rc;
    (void)ns_read(look.tasks[0], &root_ns, NULL); /* unknown ones are like any other */
    c.tree = tree;
    c.ghost_limit = request->ghost_limit ? request->ghost_limit : ENGINE_GHOST_LIMIT;
    for (size_t i = 0; i < c.n_tree; i++)
        check_one(&c, &look, i);
    doctor_check_amount(&c, &look.facts);
    doctor_finish(r, from);
    say_all_is_well(&c, from);
    return RC_OK;
}
