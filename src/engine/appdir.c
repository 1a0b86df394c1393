#include "engine/appdir.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/rand.h"
#include "codec/json.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RANDOM_BYTES 64

static enum rc put_line(int dirfd, const char *name, const char *text, struct err *err)
{
    char line[512];
    if (!text) {
        (void)unlinkat(dirfd, name, 0);
        return RC_OK;
    }
    int n = snprintf(line, sizeof(line), "%.500s\n", text);
    return fs_write_whole(dirfd, name, line, (size_t)n, 0644, err);
}

static void add_escaped(struct buf *b, const char *text)
{
    for (; *text; text++) {
        if (*text == '\n')
            buf_adds(b, "\\n");
        else if (*text == '\\')
            buf_adds(b, "\\\\");
        else
            buf_add(b, text, 1);
    }
}

static enum rc put_env(int dirfd, char *const *env, struct err *err)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    for (; env && *env; env++) {
        add_escaped(&b, *env);
        buf_adds(&b, "\n");
    }
    /* The environment often holds credentials: for the application's user alone, who is ours or,
     * for a program that changed its user, has them already. */
    return fs_write_whole(dirfd, "env", buf_str(&b), b.len, 0600, err);
}

static enum rc put_random(int dirfd, struct err *err)
{
    unsigned char bytes[RANDOM_BYTES];
    rand_bytes(bytes, sizeof(bytes));
    return fs_write_whole(dirfd, "random", bytes, sizeof(bytes), 0644, err);
}

static enum rc put_json(int dirfd, const struct appdir_identity *id, struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_uint(doc, o, "generation", id->generation);
    (void)yyjson_mut_obj_add_str(doc, o, "hostname", id->hostname);
    if (id->checkpoint_id)
        (void)yyjson_mut_obj_add_str(doc, o, "checkpoint_id", id->checkpoint_id);
    if (id->restored_at)
        (void)yyjson_mut_obj_add_str(doc, o, "restored_at", id->restored_at);
    json_write(doc, &text);
    return fs_write_whole(dirfd, "identity.json", text.data, text.len, 0644, err);
}

enum rc appdir_write(int dirfd, const struct appdir_identity *id, struct err *err)
{
    char generation[24];
    (void)snprintf(generation, sizeof(generation), "%" PRIu64, id->generation);
    enum rc rc = put_line(dirfd, APPDIR_READY, NULL, err);
    if (!rc)
        rc = put_line(dirfd, APPDIR_OUTCOME, NULL, err);
    if (!rc)
        rc = put_line(dirfd, "checkpoint_id", id->checkpoint_id, err);
    if (!rc)
        rc = put_line(dirfd, "restored_at", id->restored_at, err);
    if (!rc)
        rc = put_line(dirfd, "hostname", id->hostname, err);
    if (!rc)
        rc = put_env(dirfd, id->env, err);
    if (!rc)
        rc = put_random(dirfd, err);
    if (!rc)
        rc = put_json(dirfd, id, err);
    if (!rc)
        rc = put_line(dirfd, "generation", generation, err);
    return rc ? err_ctx(err, rc, "write the application directory") : RC_OK;
}

enum rc appdir_write_outcome(int dirfd, const char *id, const char *failure, struct err *err)
{
    char text[512];
    (void)snprintf(text, sizeof(text), "%s %.480s", id ? "saved" : "failed", id ? id : failure);
    enum rc rc = put_line(dirfd, APPDIR_OUTCOME, text, err);
    return rc ? err_ctx(err, rc, "tell the application") : RC_OK;
}

bool appdir_is_ready(int dirfd)
{
    struct stat st;
    return fstatat(dirfd, APPDIR_READY, &st, AT_SYMLINK_NOFOLLOW) == 0;
}
