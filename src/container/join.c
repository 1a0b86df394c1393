#include "container/join.h"

#include "base/compiler.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

/* In the order of entering: the mount namespace last, since /proc changes with it. */
static const struct {
    const char *name;
    int flag;
} kinds[JOIN_COUNT_] = {[JOIN_NET] = {"net", CLONE_NEWNET},
                        [JOIN_UTS] = {"uts", CLONE_NEWUTS},
                        [JOIN_PID] = {"pid", CLONE_NEWPID},
                        [JOIN_MNT] = {"mnt", CLONE_NEWNS}};

enum rc join_open(pid_t pid, struct join *out, struct err *err)
{
    CLEANUP(join_done) struct join j = JOIN_NOTHING;
    for (int i = 0; i < JOIN_COUNT_; i++) {
        char path[64], own[64];
        struct stat theirs, ours;
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, kinds[i].name);
        (void)snprintf(own, sizeof(own), "/proc/self/ns/%s", kinds[i].name);
        CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
        if (fd < 0 && errno == ENOENT)
            return err_set(err, RC_NOT_FOUND, "no process %d", (int)pid);
        if (fd < 0 || fstat(fd, &theirs) < 0 || stat(own, &ours) < 0)
            return err_sys(err, "open the %s namespace of process %d", kinds[i].name, (int)pid);
        if (theirs.st_ino != ours.st_ino)
            j.fd[i] = fd_steal(&fd);
    }
    if (j.fd[JOIN_MNT] >= 0) {
        char path[64];
        (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
        j.root = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
        if (j.root < 0)
            return err_sys(err, "open the root directory of process %d", (int)pid);
    }
    *out = j;
    j = (struct join)JOIN_NOTHING;
    return RC_OK;
}

void join_done(struct join *j)
{
    for (int i = 0; i < JOIN_COUNT_; i++)
        fd_closep(&j->fd[i]);
    fd_closep(&j->root);
}

int join_enter(void *arg)
{
    const struct join *j = arg;
    for (int i = 0; i < JOIN_COUNT_; i++)
        if (j->fd[i] >= 0 && setns(j->fd[i], kinds[i].flag) < 0)
            return -errno;
    if (j->root >= 0 && (fchdir(j->root) < 0 || chroot(".") < 0 || chdir("/") < 0))
        return -errno;
    return 0;
}

bool join_same(pid_t a, pid_t b, const char *kind)
{
    char one[64], two[64];
    struct stat x, y;
    (void)snprintf(one, sizeof(one), "/proc/%d/ns/%s", (int)a, kind);
    (void)snprintf(two, sizeof(two), "/proc/%d/ns/%s", (int)b, kind);
    return stat(one, &x) == 0 && stat(two, &y) == 0 && x.st_ino == y.st_ino && x.st_dev == y.st_dev;
}
