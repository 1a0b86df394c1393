#include "container/cgroup.h"

#include "base/buf.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/mounts.h"
#include "container/scan.h"
#include "container/task.h"

#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

void cgroups_done(struct cgroups *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->list[i].controllers);
        free(c->list[i].path);
    }
    free(c->list);
    *c = (struct cgroups){0};
}

enum rc cgroups_parse(const char *text, size_t len, struct cgroups *out, struct err *err)
{
    CLEANUP(cgroups_done) struct cgroups c = {0};
    struct scan line, number, controllers, s = scan_of(text, len);
    c.list = mem_alloc(CGROUP_MAX * sizeof(*c.list));
    while (scan_line(&s, &line)) {
        uint64_t id = 0;
        if (c.n == CGROUP_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d cgroup hierarchies", CGROUP_MAX);
        if (!scan_until(&line, ':', &number) || !scan_u64(number, 10, &id) || id > UINT_MAX ||
            !scan_until(&line, ':', &controllers) || !scan_starts(line, "/"))
            return err_set(err, RC_CORRUPT, "cgroup %zu of a process makes no sense", c.n + 1);
        c.list[c.n++] = (struct cgroup){.hierarchy = (unsigned)id,
                                        .controllers = scan_dup(controllers),
                                        .path = scan_dup(line)};
    }
    *out = c;
    c = (struct cgroups){0};
    return RC_OK;
}

enum rc cgroups_read(int task, struct cgroups *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, "cgroup", &text, err);
    return rc ? rc : cgroups_parse(text.data, text.len, out, err);
}

const struct cgroup *cgroups_v2(const struct cgroups *c)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].hierarchy == 0)
            return &c->list[i];
    return NULL;
}

const struct cgroup *cgroups_v1(const struct cgroups *c, const char *controller)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].hierarchy != 0 && mounts_has_option(c->list[i].controllers, controller))
            return &c->list[i];
    return NULL;
}

/* ---- where groups are ---- */

static bool is_mount_of(const struct mount *m, const struct cgroup *g)
{
    if (g->hierarchy == 0)
        return strcmp(m->type, "cgroup2") == 0;
    if (strcmp(m->type, "cgroup") != 0)
        return false;
    struct scan one, s = scan_of(g->controllers, strlen(g->controllers));
    bool any = false;
    while (scan_until(&s, ',', &one)) {
        CLEANUP(mem_freep) char *name = scan_dup(one);
        if (!mounts_has_option(m->super, name))
            return false;
        any = true;
    }
    return any;
}

/* The part of a group's path that lies below a mounted root; NULL if it does not. */
static const char *below(const char *path, const char *root)
{
    size_t n = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(path, root, n) != 0 || (path[n] && path[n] != '/') || strstr(path, "/.."))
        return NULL;
    path += n;
    return path + strspn(path, "/");
}

/* A mount can be covered by another, so what is found there is looked at. */
static int open_group(const struct mount *m, const char *rest)
{
    struct statfs sfs;
    CLEANUP(fd_closep) int top = sys_openat(AT_FDCWD, m->target, O_RDONLY | O_DIRECTORY, 0);
    if (top < 0 || fstatfs(top, &sfs) < 0)
        return -1;
    if (sfs.f_type != CGROUP_SUPER_MAGIC && sfs.f_type != CGROUP2_SUPER_MAGIC) {
        errno = ENOENT;
        return -1;
    }
    return *rest ? sys_openat(top, rest, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0) : fd_steal(&top);
}

static enum rc open_in(const struct mounts *mounts, const struct cgroup *g, int *out,
                       struct err *err)
{
    int why = ENOENT;
    for (size_t i = 0; i < mounts->n; i++) {
        const struct mount *m = &mounts->list[i];
        const char *rest = is_mount_of(m, g) ? below(g->path, m->root) : NULL;
        int fd = rest ? open_group(m, rest) : -1;
        if (fd >= 0) {
            *out = fd;
            return RC_OK;
        }
        if (rest && errno != ENOENT)
            why = errno;
    }
    errno = why;
    if (why == ENOENT)
        return err_set(err, RC_NOT_FOUND, "no mounted cgroup '%s' (%s)", g->path,
                       g->hierarchy ? g->controllers : "v2");
    return err_sys(err, "open cgroup '%s'", g->path);
}

enum rc cgroup_open(int self, const struct cgroup *g, int *out, struct err *err)
{
    CLEANUP(mounts_done) struct mounts mounts = {0};
    enum rc rc = mounts_read(self, &mounts, err);
    return rc ? rc : open_in(&mounts, g, out, err);
}

/* ---- join ---- */

static bool is_there_already(const struct cgroups *c, const struct cgroup *g)
{
    for (size_t i = 0; i < c->n; i++)
        if (c->list[i].hierarchy == g->hierarchy)
            return strcmp(c->list[i].path, g->path) == 0;
    return false;
}

static enum rc enter(const struct mounts *mounts, const struct cgroup *g, pid_t pid,
                     struct err *err)
{
    char text[16];
    CLEANUP(fd_closep) int dir = -1;
    struct err why = ERR_INIT;
    enum rc rc = open_in(mounts, g, &dir, &why);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (rc)
        return err_set(err, rc, "%s", why.msg);
    CLEANUP(fd_closep) int fd = sys_openat(dir, "cgroup.procs", O_WRONLY, 0);
    if (fd < 0)
        return err_sys(err, "open cgroup.procs of '%s'", g->path);
    int n = snprintf(text, sizeof(text), "%d", (int)pid);
    rc = sys_write_all(fd, text, (size_t)n, &why);
    if (!rc)
        return RC_OK;
    if (why.sys == ESRCH)
        return err_set(err, RC_NOT_FOUND, "no process %d", (int)pid);
    if (why.sys == EBUSY || why.sys == EOPNOTSUPP)
        return err_set(err, RC_INVALID, "cgroup '%s' takes no processes: %s", g->path,
                       strerror(why.sys));
    return err_set(err, rc, "put process %d into cgroup '%s': %s", (int)pid, g->path, why.msg);
}

enum rc cgroup_join(int self, pid_t pid, int like, struct err *err)
{
    CLEANUP(mounts_done) struct mounts mounts = {0};
    CLEANUP(cgroups_done) struct cgroups target = {0};
    CLEANUP(cgroups_done) struct cgroups current = {0};
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(fd_closep) int proc = -1;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    if (!rc)
        rc = cgroups_read(task, &current, err);
    if (!rc)
        rc = cgroups_read(like, &target, err);
    if (!rc)
        rc = mounts_read(self, &mounts, err);
    for (size_t i = 0; !rc && i < target.n; i++)
        if (!is_there_already(&current, &target.list[i]))
            rc = enter(&mounts, &target.list[i], pid, err);
    return rc;
}
