#include "agent/signal_file.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/place.h"
#include "store/done.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODE 0644

static int open_dir(int root, const char *path)
{
    return sys_open_in_root(root, path, O_RDONLY | O_DIRECTORY, 0, RESOLVE_NO_MAGICLINKS);
}

/* The folder `path` below `root`, made where it is not there, one after the other, so that each is
 * looked up anew from the root: what a link leads to may be replaced at any time. */
static enum rc make_dirs(int root, const char *path, int *out, struct err *err)
{
    CLEANUP(mem_freep) char *done = mem_strdup(path);
    CLEANUP(fd_closep) int at = open_dir(root, "/");
    for (char *p = done; at >= 0 && *p;) {
        p += strspn(p, "/");
        size_t len = strcspn(p, "/");
        char rest = p[len];
        p[len] = '\0';
        if (len > 0 && sys_mkdirat(at, p, 0755) < 0 && errno != EEXIST)
            return err_sys(err, "make '%.200s'", done);
        fd_closep(&at);
        at = open_dir(root, done);
        p[len] = rest;
        p += len;
    }
    if (at < 0)
        return err_sys(err, "open '%.200s'", path);
    *out = fd_steal(&at);
    return RC_OK;
}

static bool is_fine(const char *path, const char *name)
{
    return path[0] == '/' && name[0] && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Of the process that the pidfd holds: it still lives when its number was used. */
static enum rc open_root(int pidfd, int *out, struct err *err)
{
    pid_t pid = 0;
    char path[48];
    enum rc rc = place_pid_of(pidfd, &pid, err);
    if (rc)
        return rc;
    (void)snprintf(path, sizeof(path), "/proc/%d/root", (int)pid);
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
    if (syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0) < 0)
        return err_set(err, RC_NOT_FOUND, "the process has ended");
    if (root < 0)
        return err_sys(err, "the container's root");
    *out = fd_steal(&root);
    return RC_OK;
}

enum rc signal_file_write(int pidfd, const char *path, const struct done *d, struct err *err)
{
    int opened = -1;
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : "";
    if (!is_fine(path, name))
        return err_set(err, RC_INVALID, "signal file '%.200s': no path of a file", path);
    enum rc rc = open_root(pidfd, &opened, err);
    if (rc)
        return err_ctx(err, rc, "signal file '%.200s'", path);
    CLEANUP(fd_closep) int root = opened;
    CLEANUP(mem_freep) char *folder = mem_asprintf("%.*s", (int)(slash - path), path);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    int made = -1;
    rc = make_dirs(root, folder, &made, err);
    CLEANUP(fd_closep) int dir = made;
    done_format(d, &text);
    if (!rc)
        rc = fs_write_whole(dir, name, text.data, text.len, MODE, err);
    return rc ? err_ctx(err, rc, "signal file '%.200s'", path) : RC_OK;
}
