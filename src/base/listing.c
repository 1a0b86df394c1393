#include "base/listing.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void listing_done(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->name[i]);
    free(l->name);
    *l = (struct listing){.n = 0};
}

static void add(struct listing *l, const char *name)
{
    if ((l->n & (l->n - 1)) == 0)
        l->name = mem_realloc(l->name, (l->n ? l->n * 2 : 1) * sizeof(*l->name));
    l->name[l->n++] = mem_strdup(name);
}

static bool is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static enum rc read_all(DIR *dir, struct listing *l, struct err *err)
{
    for (;;) {
        errno = 0;
        const struct dirent *e = sys_readdir(dir);
        if (!e)
            return errno ? err_sys(err, "read") : RC_OK;
        if (l->n == LISTING_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d names", LISTING_MAX);
        if (!is_dots(e->d_name))
            add(l, e->d_name);
    }
}

static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

enum rc listing_read(int dirfd, const char *path, struct listing *out, struct err *err)
{
    CLEANUP(listing_done) struct listing l = {.n = 0};
    CLEANUP(fd_closep)
    int fd = sys_openat(dirfd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir)
        return err_sys(err, "open directory '%s'", path);
    (void)fd_steal(&fd); /* closedir() closes it */
    enum rc rc = read_all(dir, &l, err);
    (void)closedir(dir);
    if (rc)
        return err_ctx(err, rc, "directory '%s'", path);
    if (l.n)
        qsort(l.name, l.n, sizeof(*l.name), by_bytes);
    *out = l;
    l = (struct listing){.n = 0};
    return RC_OK;
}
