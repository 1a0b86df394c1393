#include "engine/locks.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/locks.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PROC_LOCKS_MAX ((size_t)16 << 20)

/* Who holds a flock(2) lock on the file: "7: FLOCK ADVISORY WRITE 708 08:02:131 0 EOF"; 0 when that
 * cannot be told.  The device is not compared: overlay file systems show another one there. */
static pid_t flock_holder(int fd)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct stat st;
    char *save = NULL;
    if (fstat(fd, &st) < 0 ||
        fs_read_file(AT_FDCWD, "/proc/locks", PROC_LOCKS_MAX, &text, NULL) != RC_OK || !text.len)
        return 0;
    for (char *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        unsigned long long inode = 0;
        int pid = 0;
        if (sscanf(line, "%*d: FLOCK %*s %*s %d %*x:%*x:%llu", &pid, &inode) == 2 &&
            inode == st.st_ino)
            return pid > 0 ? pid : 0;
    }
    return 0;
}

static bool is_free(int fd, const struct cr_lock *lock, pid_t *out_holder)
{
    struct flock other = {.l_type = lock->write ? F_WRLCK : F_RDLCK,
                          .l_whence = SEEK_SET,
                          .l_start = lock->start,
                          .l_len = lock->len};
    *out_holder = 0;
    if (lock->flock) {
        if (flock(fd, (lock->write ? LOCK_EX : LOCK_SH) | LOCK_NB) == 0 || errno != EWOULDBLOCK)
            return true;
        *out_holder = flock_holder(fd);
        return false;
    }
    if (fcntl(fd, F_OFD_GETLK, &other) < 0 || other.l_type == F_UNLCK)
        return true;
    *out_holder = other.l_pid > 0 ? other.l_pid : 0;
    return false;
}

static enum rc check(const struct cr_lock *lock, int root, struct err *err)
{
    pid_t holder = 0;
    CLEANUP(fd_closep)
    int fd = sys_open_in_root(root, lock->path, O_RDONLY | O_NONBLOCK | O_NOCTTY, 0, 0);
    if (fd < 0 || is_free(fd, lock, &holder))
        return RC_OK;
    CLEANUP(mem_freep)
    char *who = holder ? mem_asprintf("process %d", (int)holder) : mem_strdup("another process");
    return err_set(err, RC_CONFLICT,
                   "%s holds a lock on '%.300s' that the program needs; end it first (often it is "
                   "the original)",
                   who, lock->path);
}

enum rc locks_check(int images, int root, struct err *err)
{
    struct cr_lock *locks = NULL;
    size_t n = 0;
    enum rc rc = cr_locks_load(images, &locks, &n, err);
    for (size_t i = 0; !rc && i < n; i++)
        rc = check(&locks[i], root, err);
    cr_locks_free(locks, n);
    return rc;
}
