/* Preloaded into CRIU by launch.c: remember what CRIU has found out about the machine.
 *
 * At every start CRIU tries what the kernel can do, for which it makes network namespaces and runs
 * iptables; that costs more than a small restore.  It remembers the outcome in /run/criu.kdat, but
 * only where /run is a tmpfs, as in few containers, and no longer once it was killed while it wrote
 * that file.  So where CHREK_FACTS says "DESCRIPTOR:NAME", that file is NAME in the directory.  Our
 * caller chooses a name that means this boot and these rights; that the file is of this very CRIU,
 * it looks itself.  Without the variable nothing is changed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define SHOWN __attribute__((visibility("default")))

static const char facts[] = "/run/criu.kdat", fresh[] = "/run/criu.kdat.tmp";

/* The new file, without a name until it is whole, so that nothing is left of who is killed: CRIU's
 * descriptor, and ours, which it does not close. */
static int written = -1, held = -1;

/* Where the file is; -1: where CRIU has it. */
static int place(const char **out_name)
{
    const char *text = getenv("CHREK_FACTS");
    char *end = NULL;
    long fd = text ? strtol(text, &end, 10) : -1;
    if (!text || *end != ':')
        return -1;
    *out_name = end + 1;
    return (int)fd;
}

SHOWN int open64(const char *path, int flags, ...)
{
    static int (*libc_open)(const char *, int, ...);
    const char *name;
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    int dir = strncmp(path, facts, sizeof(facts) - 1) == 0 ? place(&name) : -1;
    if (dir >= 0 && strcmp(path, facts) == 0)
        return openat64(dir, name, flags | O_CLOEXEC | O_NOFOLLOW);
    if (dir >= 0 && strcmp(path, fresh) == 0) {
        written = openat64(dir, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
        held = written < 0 ? -1 : fcntl(written, F_DUPFD_CLOEXEC, 0);
        return written;
    }
    if (!libc_open)
        *(void **)&libc_open = dlsym(RTLD_NEXT, "open64");
    return libc_open(path, flags, mode);
}

/* What it asks is whether the file ends with this boot: it does, by its name. */
SHOWN int fstatfs64(int fd, struct statfs64 *out)
{
    static int (*libc_fstatfs)(int, struct statfs64 *);
    if (!libc_fstatfs)
        *(void **)&libc_fstatfs = dlsym(RTLD_NEXT, "fstatfs64");
    int rc = libc_fstatfs(fd, out);
    if (rc == 0 && fd >= 0 && fd == written)
        out->f_type = TMPFS_MAGIC;
    return rc;
}

static void let_go(void)
{
    if (held >= 0)
        (void)close(held);
    written = held = -1;
}

/* Somebody else may have been first: then it is there. */
static int publish(int dir, const char *name)
{
    char path[32];
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", held);
    int rc = linkat(AT_FDCWD, path, dir, name, AT_SYMLINK_FOLLOW);
    int error = rc < 0 && errno == EEXIST ? 0 : errno;
    let_go();
    errno = error;
    return rc < 0 && error ? -1 : 0;
}

SHOWN int rename(const char *from, const char *to)
{
    static int (*libc_rename)(const char *, const char *);
    const char *name;
    int dir = strcmp(from, fresh) == 0 ? place(&name) : -1;
    if (dir >= 0)
        return publish(dir, name);
    if (!libc_rename)
        *(void **)&libc_rename = dlsym(RTLD_NEXT, "rename");
    return libc_rename(from, to);
}

SHOWN int unlink(const char *path)
{
    static int (*libc_unlink)(const char *);
    const char *name;
    int dir = strncmp(path, facts, sizeof(facts) - 1) == 0 ? place(&name) : -1;
    if (dir >= 0 && strcmp(path, facts) == 0)
        return unlinkat(dir, name, 0);
    if (dir >= 0 && strcmp(path, fresh) == 0) {
        let_go();
        return 0;
    }
    if (!libc_unlink)
        *(void **)&libc_unlink = dlsym(RTLD_NEXT, "unlink");
    return libc_unlink(path);
}
