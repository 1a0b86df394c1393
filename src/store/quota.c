#include "store/quota.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "base/term.h"
#include "store/pack.h"
#include "store/store_priv.h"
#include "store/workingset.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#define QUOTA_TEXT_MAX 32

enum rc store_set_quota(struct store *s, uint64_t bytes, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (s->remote)
        return err_set(err, RC_UNSUPPORTED,
                       "%s is object storage; set a quota with the storage's own means", s->path);
    if (bytes) {
        buf_addf(&text, "%" PRIu64 "\n", bytes);
        return fs_write_atomic(s->dir, STORE_QUOTA, text.data, text.len, 0644, err);
    }
    if (sys_unlinkat(s->dir, STORE_QUOTA, 0) < 0 && errno != ENOENT)
        return err_sys(err, "remove '" STORE_QUOTA "'");
    return sys_fsync(s->dir) < 0 ? err_sys(err, "fsync %s", s->path) : RC_OK;
}

enum rc store_quota(const struct store *s, uint64_t *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc =
        s->remote ? RC_NOT_FOUND : fs_read_file(s->dir, STORE_QUOTA, QUOTA_TEXT_MAX, &text, err);
    if (rc == RC_NOT_FOUND) {
        *out = 0;
        return RC_OK;
    }
    if (rc)
        return rc;
    text.data[strcspn(buf_str(&text), "\n")] = '\0';
    if (num_parse_u64(buf_str(&text), 1, UINT64_MAX, out, NULL) != RC_OK)
        return err_set(err, RC_CORRUPT,
                       "'" STORE_QUOTA "' of %s holds no number of bytes; set it with `chrek "
                       "configure --quota`",
                       s->path);
    return RC_OK;
}

static enum rc add_size(void *arg, const char *key, uint64_t size, struct err *err)
{
    (void)key;
    (void)err;
    *(uint64_t *)arg += size;
    return RC_OK;
}

static void add_files(const struct store *s, const char *id, uint64_t *used)
{
    int fd = sys_openat(s->dir, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) { /* just deleted */
        fd_closep(&fd);
        return;
    }
    for (const struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            *used += (uint64_t)st.st_size;
    }
    (void)closedir(dir);
}

enum rc store_used(const struct store *s, uint64_t *out, struct err *err)
{
    uint64_t used = 0;
    char **ids = NULL;
    enum rc rc = backend_list(store_backend(s), s->remote ? "" : PACK_PREFIX, add_size, &used, err);
    if (!rc && !s->remote)
        rc = store_list((struct store *)(uintptr_t)s, &ids, err);
    if (rc)
        return rc;
    for (char **id = ids; id && *id; id++)
        add_files(s, *id, &used);
    store_free_ids(ids);
    if (!s->remote)
        add_files(s, WORKINGSET_DIR, &used);
    *out = used;
    return RC_OK;
}

enum rc store_fits(const struct store *s, uint64_t bytes, struct err *err)
{
    CLEANUP(buf_done) struct buf has = BUF_INIT;
    CLEANUP(buf_done) struct buf may = BUF_INIT;
    uint64_t quota = 0, used = 0;
    enum rc rc = store_quota(s, &quota, err);
    if (rc || !quota)
        return rc;
    rc = store_used(s, &used, err);
    if (rc || (used <= quota && bytes <= quota - used))
        return rc;
    term_size(used + bytes, &has);
    term_size(quota, &may);
    return err_set(err, RC_NO_SPACE,
                   "%s would hold %s with this checkpoint, more than its quota of %s; delete "
                   "checkpoints (chrek gc --keep-last), or "
                   "raise it (chrek configure --quota)",
                   s->path, buf_str(&has), buf_str(&may));
}
