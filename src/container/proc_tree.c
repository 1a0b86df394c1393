#include "container/proc_tree.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "container/join.h"
#include "container/scan.h"
#include "container/task.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES_MAX 65536
#define KILL ((uint64_t)1 << (SIGKILL - 1))
#define CHILDREN_MAX ((size_t)1 << 20) /* bytes of their PIDs */
#define SAME_TRIES 32U

static enum rc open_task(pid_t pid, int *out, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    enum rc rc = task_open_proc("/proc", &proc, err);
    return rc ? rc : task_open(proc, pid, out, err);
}

enum rc proc_facts_read(pid_t pid, struct proc_facts *out, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    struct task_stat stat;
    struct task_status status;
    struct proc_facts f = {.pid = pid};
    enum rc rc = open_task(pid, &task, err);
    if (!rc) /* killed first, then exiting: it passes from one to the other meanwhile */
        rc = task_status_read(task, &status, err);
    if (!rc)
        rc = task_stat_read(task, &stat, err);
    if (rc == RC_NOT_FOUND)
        return err_set(err, rc, "no process %d", (int)pid);
    if (rc)
        return rc;
    scan_copy(scan_of(stat.name, strlen(stat.name)), f.comm, sizeof(f.comm));
    f.inner = task_inner_pid(&status);
    f.ppid = stat.ppid;
    f.state = stat.state;
    f.uid = status.uid[0];
    f.ending = task_is_exiting(&stat) || status.pending & KILL;
    f.tracer = status.tracer;
    f.rss_bytes = stat.rss_pages * (uint64_t)sysconf(_SC_PAGESIZE);
    f.start = stat.start_ticks;
    *out = f;
    return RC_OK;
}

/* neighbour: who is not in the PID namespace of this process does not count; 0: everybody does */
static enum rc all_processes(pid_t neighbour, struct proc_facts **out, size_t *out_n,
                             struct err *err)
{
    DIR *dir = opendir("/proc");
    if (!dir)
        return err_sys(err, "read /proc");
    size_t n = 0, cap = 64;
    struct proc_facts *list = mem_alloc(cap * sizeof(*list));
    bool fits = true;
    for (const struct dirent *e; fits && (e = readdir(dir));) {
        if (!isdigit((unsigned char)e->d_name[0]))
            continue;
        if (n == cap)
            list = mem_realloc(list, (cap *= 2) * sizeof(*list));
        pid_t pid = (pid_t)strtoull(e->d_name, NULL, 10);
        if (neighbour && !join_same(pid, neighbour, "pid"))
            continue; /* before more is read, which takes far longer */
        if (proc_facts_read(pid, &list[n], NULL) == RC_OK)
            fits = ++n <= PROCESSES_MAX;
    }
    (void)closedir(dir);
    if (!fits) { /* a part of them must not pass for all */
        free(list);
        return err_set(err, RC_TOO_BIG, "more than %d processes run here", PROCESSES_MAX);
    }
    *out = list;
    *out_n = n;
    return RC_OK;
}

/* Move to the front of `all`, from index `have` on, every child of those already there. */
static size_t gather(struct proc_facts *all, size_t n, size_t have)
{
    for (size_t parent = 0; parent < have; parent++)
        for (size_t i = have; i < n; i++)
            if (all[i].ppid == all[parent].pid) {
                struct proc_facts swap = all[have];
                all[have++] = all[i];
                all[i] = swap;
            }
    return have;
}

static enum rc tree_of_all(pid_t root, struct proc_facts **out, size_t *out_n, struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *all = NULL;
    size_t n = 0;
    enum rc rc = all_processes(0, &all, &n, err);
    if (rc)
        return rc;
    size_t at = 0;
    while (at < n && all[at].pid != root)
        at++;
    if (at == n)
        return err_set(err, RC_NOT_FOUND, "no process %d", (int)root);
    struct proc_facts first = all[at];
    all[at] = all[0];
    all[0] = first;
    *out_n = gather(all, n, 1);
    *out = STEAL(all);
    return RC_OK;
}

/* ---- a tree by what the kernel lists as children of each thread ---- */

/* Once. */
static enum rc read_children(int task, struct buf *out)
{
    int fd = sys_openat(task, "task", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        fd_closep(&fd);
        return RC_NOT_FOUND;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        char name[32];
        (void)snprintf(name, sizeof(name), "%.16s/children", e->d_name);
        if (isdigit((unsigned char)e->d_name[0]))
            (void)fs_read_file(fd, name, CHILDREN_MAX, out, NULL); /* a thread may have ended */
    }
    (void)closedir(dir);
    return out->overflowed ? RC_TOO_BIG : RC_OK;
}

/* The kernel goes by places in its list: when a child is taken off that it has told, it omits one
 * of those that come later.  Two answers that are the same omit none, since they would have to have
 * told the one that was taken off. */
static enum rc children_text(pid_t pid, struct buf *out)
{
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = open_task(pid, &task, NULL);
    for (unsigned i = 0; !rc && i < SAME_TRIES; i++) {
        CLEANUP(buf_done) struct buf text = {.max = CHILDREN_MAX};
        rc = read_children(task, &text);
        if (!rc && i > 0 && text.len == out->len &&
            (!text.len || memcmp(text.data, out->data, text.len) == 0))
            return RC_OK;
        buf_done(out);
        *out = text;
        text = (struct buf)BUF_INIT;
    }
    return rc == RC_NOT_FOUND ? rc : RC_CONFLICT;
}

struct growing {
    struct proc_facts *list;
    size_t n;
};

static void add_process(struct growing *g, pid_t pid)
{
    struct proc_facts f;
    if (proc_facts_read(pid, &f, NULL) != RC_OK)
        return; /* gone already */
    if ((g->n & (g->n - 1)) == 0)
        g->list = mem_realloc(g->list, (g->n ? g->n * 2 : 1) * sizeof(*g->list));
    g->list[g->n++] = f;
}

/* errors RC_NOT_FOUND (no root), RC_CONFLICT (it changes all the time), RC_TOO_BIG */
static enum rc tree_by_children(pid_t root, struct growing *g)
{
    add_process(g, root);
    for (size_t at = 0; at < g->n; at++) {
        CLEANUP(buf_done) struct buf text = {.max = CHILDREN_MAX};
        enum rc rc = children_text(g->list[at].pid, &text);
        if (rc == RC_NOT_FOUND)
            continue; /* it has ended meanwhile: it has no children any more */
        if (rc || g->n > PROCESSES_MAX)
            return rc ? rc : RC_TOO_BIG;
        CLEANUP(mem_freep) char *list = buf_steal(&text);
        char *save = NULL;
        uint64_t pid = 0;
        for (char *word = strtok_r(list, " \n", &save); word; word = strtok_r(NULL, " \n", &save))
            if (num_parse_u64(word, 1, INT_MAX, &pid, NULL) == RC_OK)
                add_process(g, (pid_t)pid);
    }
    return g->n ? RC_OK : RC_NOT_FOUND;
}

/* Kernels without CRIU's needs have no such lists. */
static bool lists_children(void)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)getpid(), (int)getpid());
    return access(path, R_OK) == 0;
}

enum rc proc_tree(pid_t root, struct proc_facts **out, size_t *out_n, struct err *err)
{
    struct growing g = {0};
    enum rc rc = lists_children() ? tree_by_children(root, &g) : RC_UNSUPPORTED;
    if (rc) {
        free(g.list);
        return tree_of_all(root, out, out_n, err);
    }
    *out = g.list;
    *out_n = g.n;
    return RC_OK;
}

enum rc proc_in_namespace(pid_t pid, struct proc_facts **out, size_t *out_n, struct err *err)
{
    return all_processes(pid, out, out_n, err);
}

enum rc proc_children(pid_t parent, struct proc_facts **out, size_t *out_n, struct err *err)
{
    struct proc_facts *all = NULL;
    size_t n = 0, kept = 0;
    enum rc rc = all_processes(0, &all, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (all[i].ppid == parent)
            all[kept++] = all[i];
    *out = all;
    *out_n = kept;
    return RC_OK;
}

enum rc proc_list(pid_t pid, const char *file, char ***out, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = open_task(pid, &task, err);
    return rc ? rc : task_list(task, file, out, err);
}

void proc_free_list(char **list)
{
    task_list_free(list);
}

enum rc proc_link(pid_t pid, const char *name, char **out, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = open_task(pid, &task, err);
    return rc ? rc : task_link(task, name, out, err);
}
