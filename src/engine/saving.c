#include "engine/saving.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define TRIES 20
#define TAKEN_TRIES 3
#define PAUSE_NS 2000000
#define GATE_NS (5 * CLOCK_S) /* for others who sweep */

struct saving {
    int fd;
    char *path;
};

/* The same for everybody who sees the process, from whatever PID namespace. */
static char *path_of(const struct proc_facts *p)
{
    char link[32];
    struct stat st;
    (void)snprintf(link, sizeof(link), "/proc/%d/ns/pid", (int)p->pid);
    uint64_t space = stat(link, &st) == 0 ? (uint64_t)st.st_ino : 0;
    return mem_asprintf(SAVING_DIR "/%" PRIu64 "-%d-%" PRIu64, space, (int)p->inner, p->start);
}

static enum rc taken(const struct proc_facts *p, int fd, struct err *err)
{
    char text[16] = "";
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    unsigned long pid = n > 0 ? strtoul(text, NULL, 10) : 0;
    CLEANUP(mem_freep) char *who = pid ? mem_asprintf("process %lu", pid) : NULL;
    return err_set(err, RC_CONFLICT,
                   "process %d (%s) is just being saved by %s; wait until that is done",
                   (int)p->pid, p->comm, who ? who : "somebody else");
}

/* An open file may have been inherited meanwhile by a child that has not executed anything yet: to
 * close it would leave the lock. */
static void unlock(int *fd)
{
    if (*fd >= 0)
        (void)flock(*fd, LOCK_UN);
    fd_closep(fd);
}

/* One at a time: who sweeps holds others' locks for a moment, which must not pass for claims. */
static int enter(void)
{
    uint64_t deadline = clock_now() + GATE_NS;
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, SAVING_DIR, O_RDONLY | O_DIRECTORY, 0);
    while (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK || clock_now() > deadline)
            return -1;
        (void)nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
    }
    return fd_steal(&fd);
}

/* What the dead have left: a lock that can be had is nobody's. */
static void sweep(void)
{
    DIR *dir = opendir(SAVING_DIR);
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        CLEANUP(unlock)
        int fd = sys_openat(dirfd(dir), e->d_name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
        if (e->d_name[0] != '.' && fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
            (void)unlinkat(dirfd(dir), e->d_name, 0);
    }
    if (dir)
        (void)closedir(dir);
}

enum rc saving_begin(const struct proc_facts *process, struct saving **out, struct err *err)
{
    CLEANUP(mem_freep) char *path = path_of(process);
    if (fs_mkdirs(SAVING_DIR, 0755, NULL) != RC_OK) {
        *out = NULL;
        return RC_OK;
    }
    CLEANUP(unlock) int gate = enter();
    sweep();
    for (int i = 0, seen = 0; i < TRIES; i++) {
        struct stat held, now;
        char text[16];
        CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0644);
        if (fd < 0)
            break;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
            if (errno != EWOULDBLOCK)
                return err_sys(err, "lock '%s'", path);
            if (++seen == TAKEN_TRIES)
                return taken(process, fd, err);
            (void)nanosleep(&(struct timespec){0, PAUSE_NS}, NULL); /* or somebody is sweeping */
            continue;
        }
        /* Between opening and locking its holder may have ended, and taken it away. */
        if (fstat(fd, &held) < 0 || stat(path, &now) < 0 || held.st_ino != now.st_ino)
            continue;
        int n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
        (void)!ftruncate(fd, 0);
        (void)!pwrite(fd, text, (size_t)n, 0);
        struct saving *s = mem_zalloc(sizeof(*s));
        *s = (struct saving){.fd = fd_steal(&fd), .path = STEAL(path)};
        *out = s;
        return RC_OK;
    }
    *out = NULL;
    return RC_OK;
}

void saving_endp(struct saving **p)
{
    struct saving *s = STEAL(*p);
    if (!s)
        return;
    (void)unlink(s->path);
    unlock(&s->fd);
    free(s->path);
    free(s);
}
