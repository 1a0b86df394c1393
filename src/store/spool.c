#include "store/spool.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "chrek-spool-"
#define YOUNG 10 /* seconds: between its mkdir and its flock an owner looks dead */

static void sweep_one(int base, const char *name)
{
    struct stat st;
    CLEANUP(fd_closep) int fd = sys_openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0 || fstat(fd, &st) < 0 || st.st_uid != geteuid() ||
        flock(fd, LOCK_EX | LOCK_NB) < 0 || time(NULL) - st.st_mtime < YOUNG)
        return;
    (void)!fs_remove_tree(base, name, NULL);
}

static void sweep(const char *base)
{
    int fd = sys_openat(AT_FDCWD, base, O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        fd_closep(&fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(dir));)
        if (strncmp(e->d_name, PREFIX, sizeof(PREFIX) - 1) == 0)
            sweep_one(fd, e->d_name);
    (void)closedir(dir);
}

enum rc spool_open(const char *base, struct spool *out, struct err *err)
{
    base = base ? base : "/var/tmp";
    sweep(base);
    CLEANUP(spool_done)
    struct spool s = {.dir = -1, .path = mem_asprintf("%s/" PREFIX "XXXXXX", base)};
    if (!mkdtemp(s.path)) {
        enum rc rc = err_sys(err, "make a directory in '%s'", base);
        free(s.path);
        s.path = NULL;
        return rc;
    }
    s.dir = sys_openat(AT_FDCWD, s.path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (s.dir < 0)
        return err_sys(err, "open '%s'", s.path);
    if (flock(s.dir, LOCK_EX | LOCK_NB) < 0)
        return err_sys(err, "lock '%s'", s.path);
    *out = s;
    s = (struct spool){.dir = -1};
    return RC_OK;
}

void spool_done(struct spool *s)
{
    if (s->path)
        (void)!fs_remove_tree(AT_FDCWD, s->path, NULL);
    fd_closep(&s->dir);
    free(s->path);
    *s = (struct spool){.dir = -1};
}
