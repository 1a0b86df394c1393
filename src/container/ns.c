#include "container/ns.h"

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>

static const struct {
    const char *name;
    int flag;
} kinds[NS_COUNT_] = {
    [NS_MNT] = {"mnt", CLONE_NEWNS},
    [NS_PID] = {"pid", CLONE_NEWPID},
    [NS_PID_CHILDREN] = {"pid_for_children", CLONE_NEWPID},
    [NS_NET] = {"net", CLONE_NEWNET},
    [NS_IPC] = {"ipc", CLONE_NEWIPC},
    [NS_UTS] = {"uts", CLONE_NEWUTS},
    [NS_USER] = {"user", CLONE_NEWUSER},
    [NS_CGROUP] = {"cgroup", CLONE_NEWCGROUP},
    [NS_TIME] = {"time", CLONE_NEWTIME},
    [NS_TIME_CHILDREN] = {"time_for_children", CLONE_NEWTIME},
};

const char *ns_name(enum ns_kind kind)
{
    return kinds[kind].name;
}

int ns_flag(enum ns_kind kind)
{
    return kinds[kind].flag;
}

enum rc ns_read(int task, struct ns_set *out, struct err *err)
{
    struct ns_set set = {0};
    for (int i = 0; i < NS_COUNT_; i++) {
        char path[32];
        struct stat st;
        (void)snprintf(path, sizeof(path), "ns/%s", kinds[i].name);
        if (fstatat(task, path, &st, 0) == 0) {
            set.id[i].dev = st.st_dev;
            set.id[i].ino = st.st_ino;
        } else if (errno == ESRCH) {
            return err_set(err, RC_NOT_FOUND, "the process has ended");
        } else if (errno != ENOENT) {
            return err_sys(err, "look at the %s namespace", kinds[i].name);
        }
    }
    *out = set;
    return RC_OK;
}

static bool both_known(const struct ns_set *a, const struct ns_set *b, enum ns_kind kind)
{
    return a->id[kind].ino && b->id[kind].ino;
}

bool ns_same(const struct ns_set *a, const struct ns_set *b, enum ns_kind kind)
{
    return both_known(a, b, kind) && a->id[kind].ino == b->id[kind].ino &&
           a->id[kind].dev == b->id[kind].dev;
}

bool ns_differ(const struct ns_set *a, const struct ns_set *b, enum ns_kind kind)
{
    return both_known(a, b, kind) && !ns_same(a, b, kind);
}

enum rc ns_open(int task, enum ns_kind kind, int *out, struct err *err)
{
    char path[32];
    struct stat st;
    (void)snprintf(path, sizeof(path), "ns/%s", kinds[kind].name);
    int fd = sys_openat(task, path, O_RDONLY, 0);
    if (fd < 0 && errno == ENOENT && fstatat(task, "ns/mnt", &st, 0) == 0)
        return err_set(err, RC_UNSUPPORTED, "this kernel has no %s namespaces", kinds[kind].name);
    if (fd < 0 && (errno == ENOENT || errno == ESRCH))
        return err_set(err, RC_NOT_FOUND, "the process has ended");
    if (fd < 0)
        return err_sys(err, "open the %s namespace", kinds[kind].name);
    *out = fd;
    return RC_OK;
}
