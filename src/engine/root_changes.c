#include "engine/root_changes.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/mounts.h"
#include "rootfs/apply.h"
#include "rootfs/diff.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LOWER_MAX 512 /* the kernel allows 500 */

struct layers {
    int fd[LOWER_MAX];
    size_t n;
    bool unseen; /* there are more */
};

static void layers_done(struct layers *l)
{
    for (size_t i = 0; i < l->n; i++)
        fd_closep(&l->fd[i]);
}

/* The directories of "a:b:c".  Runtimes that find the list too long for a mount option shorten it:
 * its paths are then relative to a directory that nobody names.  Kernels since 6.8 may have them in
 * other options (`lowerdir+`). */
static void open_layers(char *list, struct layers *out)
{
    char *save = NULL;
    out->unseen = !list;
    for (char *dir = list ? strtok_r(list, ":", &save) : NULL; dir;
         dir = strtok_r(NULL, ":", &save)) {
        int fd = -1;
        if (dir[0] == '/' && out->n < LOWER_MAX)
            fd = sys_openat(AT_FDCWD, dir, O_RDONLY | O_DIRECTORY, 0);
        if (fd >= 0)
            out->fd[out->n++] = fd;
        else
            out->unseen = true;
    }
}

/* Every mount point but the root, relative. */
static const char **mount_points(const struct mounts *m)
{
    const char **list = mem_zalloc((m->n + 1) * sizeof(*list));
    size_t n = 0;
    for (size_t i = 0; i < m->n; i++)
        if (m->list[i].target[0] == '/' && m->list[i].target[1])
            list[n++] = m->list[i].target + 1;
    return list;
}

/* The same root directory as ours: a box, or a plain process. */
static bool shares_our_root(pid_t pid)
{
    char path[64];
    struct stat theirs, ours;
    (void)snprintf(path, sizeof(path), "/proc/%d/root/.", (int)pid);
    return stat(path, &theirs) == 0 && stat("/", &ours) == 0 && theirs.st_dev == ours.st_dev &&
           theirs.st_ino == ours.st_ino;
}

static enum rc capture(const struct mount *root, const struct mounts *all, int ckptfd,
                       struct metadata *m, struct err *err)
{
    CLEANUP(mem_freep) char *upper = mounts_option(root->super, "upperdir");
    CLEANUP(mem_freep) char *lower = mounts_option(root->super, "lowerdir");
    CLEANUP(layers_done) struct layers layers = {.n = 0};
    CLEANUP(mem_freep) const char **mounts = mount_points(all);
    if (!upper)
        return RC_OK; /* a read-only overlay has no changes */
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, upper, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return err_sys(err, "open the overlay's upper directory '%s'", upper);
    open_layers(lower, &layers);
    struct diff_source from = {.upper = fd,
                               .lower = layers.fd,
                               .n_lower = layers.n,
                               .unseen_lower = layers.unseen,
                               .mounts = mounts};
    enum rc rc = rootfs_capture(&from, ckptfd, &m->has_rootfs_diff, &m->has_deleted_files, err);
    if (rc)
        return rc;
    m->upper_dir = STEAL(upper);
    if (m->has_rootfs_diff)
        m->rootfs_diff_path = mem_strdup(ROOTFS_DIFF);
    return RC_OK;
}

enum rc root_changes_save(pid_t pid, int ckptfd, struct metadata *m, struct err *err)
{
    if (shares_our_root(pid))
        return RC_OK;
    char path[64];
    CLEANUP(mounts_done) struct mounts mounts = {0};
    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    CLEANUP(fd_closep) int task = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (task < 0)
        return err_sys(err, "open '%s'", path);
    enum rc rc = mounts_read(task, &mounts, err);
    if (rc)
        return rc;
    const struct mount *root = mounts_root(&mounts);
    if (root && strcmp(root->type, "overlay") == 0)
        return capture(root, &mounts, ckptfd, m, err);
    return err_set(err, RC_UNSUPPORTED,
                   "the container's root file system is %s: changes of files can be saved of an "
                   "overlay only",
                   root ? root->type : "unknown");
}
