#include "entrypoint/choose.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/name.h"
#include "entrypoint/guard.h"
#include "entrypoint/log.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TRIGGER_MAX 8192

static enum rc open_checkpoint(const struct settings *s, const char *path, bool needs_marker,
                               struct store_entry **out, struct err *err)
{
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(err, RC_NOT_FOUND, "no checkpoint at %s", path);
    if (dir < 0)
        return err_sys(err, "open '%s'", path);
    return needs_marker ? store_adopt(fd_steal(&dir), path, s->vault, out, err)
                        : store_adopt_unmarked(fd_steal(&dir), path, s->vault, out, err);
}

/* Baked into the image: metadata.json is enough, but a marker that is there must be a good one. */
static enum rc embedded(const struct settings *s, struct store_entry **out, struct err *err)
{
    CLEANUP(mem_freep) char *meta = mem_asprintf("%s/metadata.json", s->embedded);
    CLEANUP(mem_freep) char *done = mem_asprintf("%s/checkpoint.done", s->embedded);
    if (access(meta, F_OK) < 0)
        return err_set(err, RC_NOT_FOUND, "no embedded checkpoint");
    return open_checkpoint(s, s->embedded, access(done, F_OK) == 0, out, err);
}

static enum rc by_hash(const struct settings *s, struct store_entry **out, struct err *err)
{
    if (!s->hash)
        return err_set(err, RC_NOT_FOUND, "DYN_CHECKPOINT_HASH is not set");
    enum rc rc = name_check_id(s->hash, err);
    if (rc)
        return err_ctx(err, rc, "DYN_CHECKPOINT_HASH");
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", s->path, s->hash);
    return open_checkpoint(s, path, true, out, err);
}

static enum rc by_trigger(const struct settings *s, struct store_entry **out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = fs_read_file(AT_FDCWD, s->trigger, TRIGGER_MAX, &text, err);
    if (rc)
        return rc;
    static const char blanks[] = " \t\r\n";
    char *path = text.data ? text.data + strspn(text.data, blanks) : NULL;
    if (!path || !*path)
        return err_set(err, RC_NOT_FOUND, "the trigger file is empty");
    size_t n = strlen(path);
    while (n && strchr(blanks, path[n - 1]))
        path[--n] = '\0';
    if (path[0] != '/' || strstr(path, "/../"))
        return err_set(err, RC_INVALID, "the trigger file names no absolute directory");
    return open_checkpoint(s, path, true, out, err);
}

enum rc choose_checkpoint(const struct settings *s, struct store_entry **out, struct err *err)
{
    static enum rc (*const ways[])(const struct settings *, struct store_entry **,
                                   struct err *) = {embedded, by_hash, by_trigger};
    struct err first = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(ways); i++) {
        struct err why = ERR_INIT;
        enum rc rc = ways[i](s, out, &why);
        if (!rc)
            return RC_OK;
        if (rc != RC_NOT_FOUND && !first.rc)
            first = why;
    }
    if (!first.rc)
        return err_set(err, RC_NOT_FOUND, "no checkpoint to restore");
    enum rc rc = first.rc;
    if (err)
        *err = first;
    return rc;
}

enum rc choose_or_wait(const struct settings *s, struct store_entry **out, struct err *err)
{
    struct err why = ERR_INIT;
    enum rc rc = choose_checkpoint(s, out, &why);
    for (uint64_t waited = 0; rc && s->wait && waited < s->wait_timeout_s; waited++) {
        if (waited % CHOOSE_SAY_EVERY_S == 0)
            log_info("Waiting for checkpoint", "reason", why.msg, NULL);
        guard_pause(1);
        why = (struct err)ERR_INIT;
        rc = choose_checkpoint(s, out, &why);
    }
    if (rc && err)
        *err = why;
    return rc;
}
