#include "exchange/members.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define BLOCK ((size_t)1 << 20) /* read of an archive at once */

struct member_data {
    struct archive *archive; /* or NULL */
    int fd;                  /* of a file in a directory */
    uint64_t left;
};

struct visiting {
    member_visit *visit;
    void *arg;
    uint64_t allowed; /* bytes of all members together */
    uint64_t bytes;
    unsigned n;
};

static void free_archive(struct archive **a)
{
    if (*a)
        (void)archive_read_free(*a);
}

static enum rc broken(struct archive *a, struct err *err)
{
    const char *text = archive_error_string(a);
    return err_set(err, RC_CORRUPT, "it is no whole tar archive: %s", text ? text : "cut off");
}

/* ---- what every member must be ---- */

/* Take "./" at the front and "/" at the end away; errors RC_CORRUPT */
static enum rc clean_path(const char *given, char out[MEMBERS_PATH_MAX + 1], struct err *err)
{
    const char *path = given ? given : "";
    unsigned depth = 0;
    while (strncmp(path, "./", 2) == 0)
        path += 2;
    size_t n = strlen(path);
    while (n > 0 && path[n - 1] == '/')
        n--;
    bool good = n <= MEMBERS_PATH_MAX && path[0] != '/';
    for (size_t at = 0; good && at < n; depth++) {
        size_t part = strcspn(path + at, "/");
        if (at + part > n)
            part = n - at;
        good = part > 0 && depth <= MEMBERS_DEPTH && !(part == 1 && path[at] == '.') &&
               !(part == 2 && path[at] == '.' && path[at + 1] == '.');
        at += part + 1;
    }
    for (size_t i = 0; good && i < n; i++)
        good = (unsigned char)path[i] >= 0x20 && path[i] != 0x7f;
    if (!good)
        return err_set(err, RC_CORRUPT, "it has a member with the bad name '%.64s'",
                       given ? given : "");
    memcpy(out, path, n);
    out[n] = '\0';
    return RC_OK;
}

enum rc members_check_path(const char *path, struct err *err)
{
    char clean[MEMBERS_PATH_MAX + 1];
    enum rc rc = clean_path(path, clean, err);
    return rc || (*clean && strcmp(clean, path) == 0)
               ? rc
               : err_set(err, RC_CORRUPT, "'%.64s' is no clean path", path);
}

static enum rc admit(struct visiting *v, const struct member *m, struct err *err)
{
    if (++v->n > MEMBERS_MAX)
        return err_set(err, RC_TOO_BIG, "it has more than %u members", MEMBERS_MAX);
    if (m->size > v->allowed - v->bytes)
        return err_set(err, RC_TOO_BIG,
                       "'%.64s' makes it more than %ju times as large as the archive is: if you "
                       "trust it, unpack it and import the directory",
                       m->path, (uintmax_t)MEMBERS_RATIO);
    v->bytes += m->size;
    return RC_OK;
}

/* ---- an archive ---- */

static enum rc read_archive(struct member_data *d, void *data, size_t cap, size_t *out_len,
                            struct err *err)
{
    size_t n = 0;
    while (n < cap) {
        la_ssize_t got = archive_read_data(d->archive, (char *)data + n, cap - n);
        if (got == ARCHIVE_RETRY)
            continue;
        if (got < 0)
            return broken(d->archive, err);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *out_len = n;
    return RC_OK;
}

static enum rc check_kind(struct archive_entry *e, const char *path, struct err *err)
{
    if (archive_entry_hardlink(e) || archive_entry_symlink(e))
        return err_set(err, RC_CORRUPT, "its member '%.64s' is a link", path);
    if (archive_entry_filetype(e) != AE_IFREG)
        return err_set(err, RC_CORRUPT, "its member '%.64s' is neither a file nor a directory",
                       path);
    if (!archive_entry_size_is_set(e) || archive_entry_size(e) < 0)
        return err_set(err, RC_CORRUPT, "its member '%.64s' does not say how large it is", path);
    return RC_OK;
}

static enum rc visit_entry(struct visiting *v, struct archive *a, struct archive_entry *e,
                           struct err *err)
{
    char path[MEMBERS_PATH_MAX + 1] = "";
    enum rc rc = clean_path(archive_entry_pathname(e), path, err);
    if (rc)
        return rc;
    if (archive_entry_filetype(e) == AE_IFDIR)
        return ++v->n > MEMBERS_MAX
                   ? err_set(err, RC_TOO_BIG, "it has more than %u members", MEMBERS_MAX)
                   : RC_OK;
    if (!*path)
        return err_set(err, RC_CORRUPT, "it has a member without a name");
    rc = check_kind(e, path, err);
    if (rc)
        return rc;
    struct member m = {.path = path,
                       .size = (uint64_t)archive_entry_size(e),
                       .mode = archive_entry_perm(e) & 0777,
                       .mtime = archive_entry_mtime_is_set(e) ? archive_entry_mtime(e) : 0};
    struct member_data d = {.archive = a, .fd = -1, .left = m.size};
    rc = admit(v, &m, err);
    return rc ? rc : v->visit(v->arg, &m, &d, err);
}

static enum rc each_of_archive(struct visiting *v, int fd, struct err *err)
{
    CLEANUP(free_archive) struct archive *a = archive_read_new();
    if (!a || archive_read_support_format_tar(a) != ARCHIVE_OK ||
        archive_read_support_filter_gzip(a) != ARCHIVE_OK ||
        archive_read_support_filter_zstd(a) != ARCHIVE_OK)
        return err_set(err, RC_UNSUPPORTED, "this libarchive cannot read tar with gzip and zstd");
    if (archive_read_open_fd(a, fd, BLOCK) != ARCHIVE_OK)
        return broken(a, err);
    for (;;) {
        struct archive_entry *e = NULL;
        int got = archive_read_next_header(a, &e);
        if (got == ARCHIVE_EOF)
            return v->n ? RC_OK : err_set(err, RC_CORRUPT, "it is no tar archive, or empty");
        if (got != ARCHIVE_OK)
            return broken(a, err);
        enum rc rc = visit_entry(v, a, e, err);
        if (rc)
            return rc;
    }
}

/* ---- a directory ---- */

static enum rc read_file(struct member_data *d, void *data, size_t cap, size_t *out_len,
                         struct err *err)
{
    size_t want = cap < d->left ? cap : (size_t)d->left, n = 0;
    enum rc rc = sys_read_full(d->fd, data, want, &n, err);
    if (rc)
        return rc;
    if (n < want)
        return err_set(err, RC_CORRUPT, "it has become shorter");
    d->left -= n;
    *out_len = n;
    return RC_OK;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void free_names(char ***names)
{
    for (char **p = *names; p && *p; p++)
        free(*p);
    free(*names);
}

/* Sorted, so that two imports of a directory are the same. */
static enum rc list_names(int fd, char ***out, struct err *err)
{
    int copy = sys_openat(fd, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = copy >= 0 ? fdopendir(copy) : NULL;
    if (!dir) {
        enum rc rc = err_sys(err, "read the directory");
        fd_closep(&copy);
        return rc;
    }
    size_t n = 0;
    char **names = mem_zalloc(sizeof(*names));
    for (const struct dirent *e; (e = readdir(dir));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        names = mem_realloc(names, (n + 2) * sizeof(*names));
        names[n++] = mem_strdup(e->d_name);
        names[n] = NULL;
    }
    (void)closedir(dir);
    qsort(names, n, sizeof(*names), by_name);
    *out = names;
    return RC_OK;
}

static enum rc visit_file(struct visiting *v, int fd, const char *path, const struct stat *st,
                          struct err *err)
{
    struct member m = {.path = path,
                       .size = (uint64_t)st->st_size,
                       .mode = st->st_mode & 0777,
                       .mtime = st->st_mtime};
    struct member_data d = {.fd = fd, .left = m.size};
    enum rc rc = admit(v, &m, err);
    return rc ? rc : v->visit(v->arg, &m, &d, err);
}

/* NOLINTNEXTLINE(misc-no-recursion): as deep as MEMBERS_DEPTH */
static enum rc each_of_directory(struct visiting *v, int dir, const char *prefix, unsigned depth,
                                 struct err *err)
{
    CLEANUP(free_names) char **names = NULL;
    enum rc rc = list_names(dir, &names, err);
    for (char **name = names; !rc && name && *name; name++) {
        struct stat st;
        char path[MEMBERS_PATH_MAX + 1];
        CLEANUP(mem_freep) char *joined = mem_asprintf("%s%s", prefix, *name);
        rc = clean_path(joined, path, err);
        if (rc)
            return rc;
        CLEANUP(fd_closep) int fd = sys_openat(dir, *name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
        if (fd < 0 && errno == ELOOP)
            return err_set(err, RC_CORRUPT, "its member '%.64s' is a link", path);
        if (fd < 0 || fstat(fd, &st) < 0)
            return err_sys(err, "open '%.64s'", path);
        if (S_ISREG(st.st_mode)) {
            rc = visit_file(v, fd, path, &st, err);
            continue;
        }
        if (!S_ISDIR(st.st_mode))
            return err_set(err, RC_CORRUPT, "its member '%.64s' is neither a file nor a directory",
                           path);
        if (depth == MEMBERS_DEPTH)
            return err_set(err, RC_TOO_BIG, "'%.64s' lies too deep", path);
        CLEANUP(mem_freep) char *below = mem_asprintf("%s/", path);
        rc = each_of_directory(v, fd, below, depth + 1, err);
    }
    return rc;
}

/* ---- both ---- */

enum rc member_read(struct member_data *d, void *data, size_t cap, size_t *out_len, struct err *err)
{
    return d->archive ? read_archive(d, data, cap, out_len, err)
                      : read_file(d, data, cap, out_len, err);
}

enum rc members_each(const char *path, member_visit *visit, void *arg, struct err *err)
{
    struct stat st;
    struct visiting v = {.visit = visit, .arg = arg, .allowed = UINT64_MAX};
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, "open '%s'", path);
    enum rc rc = RC_OK;
    if (S_ISDIR(st.st_mode)) {
        rc = each_of_directory(&v, fd, "", 0, err);
    } else if (S_ISREG(st.st_mode)) {
        uint64_t size = (uint64_t)st.st_size;
        v.allowed = size > UINT64_MAX / MEMBERS_RATIO ? UINT64_MAX : size * MEMBERS_RATIO;
        v.allowed = v.allowed < MEMBERS_FREE ? MEMBERS_FREE : v.allowed;
        rc = each_of_archive(&v, fd, err);
    } else {
        rc = err_set(err, RC_INVALID, "it is neither a file nor a directory");
    }
    return rc ? err_ctx(err, rc, "read '%s'", path) : RC_OK;
}
