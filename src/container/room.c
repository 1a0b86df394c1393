#include "container/room.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "container/cgroup.h"
#include "container/task.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TEXT_MAX ((size_t)1 << 16)
#define GROUP_FILE "cgroup.procs" /* that every group has */

struct names {
    const char *limit, *usage, *cache; /* cache: the line of memory.stat that can be dropped */
};

static const struct names v1_names = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                      "total_inactive_file "};
static const struct names v2_names = {"memory.max", "memory.current", "inactive_file "};

/* The number after a key at the begin of a line; 0: there is none. */
static uint64_t number_after(const char *text, const char *key)
{
    size_t len = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, len) == 0)
            return strtoull(line + len, NULL, 10);
    }
    return 0;
}

uint64_t room_machine(void)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (fs_read_file(AT_FDCWD, "/proc/meminfo", TEXT_MAX, &text, NULL) != RC_OK)
        return 0;
    return number_after(buf_str(&text), "MemAvailable:") << 10;
}

/* RC_NOT_FOUND: no such file, as in a hierarchy's root. */
static enum rc read_number(int dir, const char *name, const char *key, uint64_t *out,
                           struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = fs_read_file(dir, name, TEXT_MAX, &text, err);
    if (rc)
        return rc;
    const char *s = buf_str(&text);
    *out = strncmp(s, "max", 3) == 0 ? UINT64_MAX
           : key                     ? number_after(s, key)
                                     : strtoull(s, NULL, 10);
    return RC_OK;
}

/* What is left below one limit. */
static enum rc left_in(int dir, const struct names *n, uint64_t *out, struct err *err)
{
    uint64_t limit = 0, usage = 0, cache = 0;
    enum rc rc = read_number(dir, n->limit, NULL, &limit, err);
    if (!rc)
        rc = read_number(dir, n->usage, NULL, &usage, err);
    if (!rc)
        rc = read_number(dir, "memory.stat", n->cache, &cache, err);
    if (rc)
        return rc;
    usage -= cache < usage ? cache : usage;
    *out = limit > usage ? limit - usage : 0;
    return RC_OK;
}

enum rc room_of_group(int dir, bool v2, uint64_t *out, struct err *err)
{
    uint64_t least = UINT64_MAX, left = 0;
    CLEANUP(fd_closep) int at = sys_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    for (;;) {
        struct err why = ERR_INIT;
        enum rc rc = at < 0 ? err_sys(&why, "open a control group")
                            : left_in(at, v2 ? &v2_names : &v1_names, &left, &why);
        if (rc == RC_NOT_FOUND) /* without this controller, or above all groups */
            left = UINT64_MAX;
        if (rc == RC_NOT_FOUND && faccessat(at, GROUP_FILE, F_OK, 0) < 0)
            break;
        if (rc && rc != RC_NOT_FOUND) {
            if (err)
                *err = why;
            return rc;
        }
        least = left < least ? left : least;
        int up = sys_openat(at, "..", O_RDONLY | O_DIRECTORY, 0);
        fd_closep(&at);
        at = up;
    }
    *out = least;
    return RC_OK;
}

static enum rc in_group(int self, const struct cgroup *g, bool v2, uint64_t *least, struct err *err)
{
    int dir = -1;
    uint64_t left = UINT64_MAX;
    enum rc rc = g ? cgroup_open(self, g, &dir, err) : RC_OK;
    if (rc || !g)
        return rc;
    rc = room_of_group(dir, v2, &left, err);
    fd_closep(&dir);
    *least = left < *least ? left : *least;
    return rc;
}

enum rc room_of(pid_t pid, uint64_t *out, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(fd_closep) int self = -1;
    CLEANUP(cgroups_done) struct cgroups groups = {0};
    uint64_t least = room_machine();
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    if (!rc)
        rc = task_open(proc, getpid(), &self, err);
    if (!rc)
        rc = cgroups_read(task, &groups, err);
    const struct cgroup *v1 = rc ? NULL : cgroups_v1(&groups, "memory");
    if (!rc)
        rc = in_group(self, v1, false, &least, err);
    if (!rc && !v1) /* a controller is in one of the two */
        rc = in_group(self, cgroups_v2(&groups), true, &least, err);
    if (!rc)
        *out = least;
    return rc;
}
