#include "container/box_files.h"

#include "base/compiler.h"
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

static int loopback_up(void)
{
    CLEANUP(fd_closep) int sk = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sk < 0)
        return -1;
    struct ifreq ifr = {.ifr_flags = IFF_UP | IFF_RUNNING};
    (void)snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "lo");
    return ioctl(sk, SIOCSIFFLAGS, &ifr);
}

/* The directory must exist on the caller's file system to be mounted over; where it cannot be made
 * (a read-only root) the application does without it. */
static int mount_app_dir(void)
{
    if ((mkdir("/run/chrek", 0755) < 0 && errno != EEXIST && errno != EROFS) ||
        mount("chrek", "/run/chrek", "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755,size=16m") < 0)
        return errno == ENOENT || errno == EROFS ? 0 : -1;
    return mkdir(BOX_APP_DIR, 01777) < 0 || chmod(BOX_APP_DIR, 01777) < 0 ? -1 : 0;
}

int box_mount_files(const struct box_config *config, enum box_stage *out_stage)
{
    *out_stage = BOX_STAGE_PRIVATE_MOUNTS;
    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
        return -1;
    *out_stage = BOX_STAGE_PROC;
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        return -1;
    *out_stage = BOX_STAGE_PTS;
    if (mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
              "newinstance,ptmxmode=0666,mode=0620") < 0)
        return -1;
    *out_stage = BOX_STAGE_SHM;
    if (!config->host_shm &&
        mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777") < 0)
        return -1;
    *out_stage = BOX_STAGE_APP_DIR;
    if (mount_app_dir() < 0)
        return -1;
    *out_stage = BOX_STAGE_LOOPBACK;
    return config->private_net ? loopback_up() : 0;
}

int box_open_pty(const struct winsize *window, int *out_master, int *out_slave)
{
    CLEANUP(fd_closep) int master = sys_openat(AT_FDCWD, "/dev/ptmx", O_RDWR | O_NOCTTY, 0);
    int unlock = 0;
    if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return -1;
    int number = 0;
    char path[32];
    if (ioctl(master, TIOCGPTN, &number) < 0)
        return -1;
    (void)snprintf(path, sizeof(path), "/dev/pts/%d", number);
    CLEANUP(fd_closep) int slave = sys_openat(AT_FDCWD, path, O_RDWR | O_NOCTTY, 0);
    if (slave < 0 || (window->ws_row && ioctl(master, TIOCSWINSZ, window) < 0))
        return -1;
    *out_master = fd_steal(&master);
    *out_slave = fd_steal(&slave);
    return 0;
}

void box_skip_pids(int first)
{
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, "/proc/sys/kernel/ns_last_pid", O_RDWR, 0);
    char text[16] = {0};
    if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0 ||
        strtoull(text, NULL, 10) >= (unsigned)first)
        return;
    int n = snprintf(text, sizeof(text), "%d", first);
    (void)!pwrite(fd, text, (size_t)n, 0);
}

/* Open the same file again through the box's own mounts and put it at the same number. */
static void reopen(int fd)
{
    char link[64], path[4096];
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);
    int flags = fcntl(fd, F_GETFL);
    struct stat before, after;
    CLEANUP(fd_closep) int again = -1;
    if (n > 0 && flags >= 0) {
        path[n] = '\0';
        again = sys_openat(AT_FDCWD, path, (flags & ~(O_CREAT | O_EXCL | O_TRUNC)) | O_NOCTTY, 0);
    }
    off_t at = lseek(fd, 0, SEEK_CUR);
    bool same = again >= 0 && fstat(fd, &before) == 0 && fstat(again, &after) == 0 &&
                before.st_dev == after.st_dev && before.st_ino == after.st_ino &&
                (at < 0 || lseek(again, at, SEEK_SET) == at);
    if (!same || dup2(again, fd) < 0)
        (void)close(fd);
}

static bool is_kept(const struct box_config *config, int control, int fd)
{
    return fd <= 2 || fd == control || fd == config->stdio[0] || fd == config->stdio[1] ||
           fd == config->stdio[2];
}

/* The master of a terminal outside (terminal emulators leak them): to open it again would make a
 * terminal in the box, and take the number that a restored one needs. */
static bool is_pty_master(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == makedev(5, 2);
}

int box_sort_descriptors(const struct box_config *config, int control, int children)
{
    DIR *dir = opendir("/proc/self/fd");
    if (!dir)
        return -1;
    for (const struct dirent *e; (e = readdir(dir));) {
        int fd = (int)strtoul(e->d_name, NULL, 10);
        struct stat st;
        if (e->d_name[0] == '.' || fd == children || fd == dirfd(dir) ||
            is_kept(config, control, fd))
            continue;
        int flags = fcntl(fd, F_GETFD);
        if (flags < 0 || (flags & FD_CLOEXEC) || fstat(fd, &st) < 0 || is_pty_master(&st))
            (void)close(fd);
        else if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) || S_ISCHR(st.st_mode))
            reopen(fd);
    }
    (void)closedir(dir);
    return 0;
}
