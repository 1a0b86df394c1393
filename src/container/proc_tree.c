#include "container/proc_tree.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/join.h"
#include "container/scan.h"
#include "container/task.h"

#include <ctype.h>
#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROCESSES_MAX 65536
#define KILL ((uint64_t)1 << (SIGKILL - 1))

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
    if (!rc)
        rc = task_stat_read(task, &stat, err);
    if (!rc)
        rc = task_status_read(task, &status, err);
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

static enum rc all_processes(struct proc_facts **out, size_t *out_n, struct err *err)
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
        if (proc_facts_read((pid_t)strtoull(e->d_name, NULL, 10), &list[n], NULL) == RC_OK)
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

enum rc proc_tree(pid_t root, struct proc_facts **out, size_t *out_n, struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *all = NULL;
    size_t n = 0;
    enum rc rc = all_processes(&all, &n, err);
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

enum rc proc_in_namespace(pid_t pid, struct proc_facts **out, size_t *out_n, struct err *err)
{
    struct proc_facts *all = NULL;
    size_t n = 0, kept = 0;
    enum rc rc = all_processes(&all, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (join_same(all[i].pid, pid, "pid"))
            all[kept++] = all[i];
    *out = all;
    *out_n = kept;
    return RC_OK;
}

enum rc proc_children(pid_t parent, struct proc_facts **out, size_t *out_n, struct err *err)
{
    struct proc_facts *all = NULL;
    size_t n = 0, kept = 0;
    enum rc rc = all_processes(&all, &n, err);
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
