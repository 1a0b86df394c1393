#include "store/objects.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/name.h"
#include "store/bundle.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SUFFIX ".tar"
#define ESCAPE "_x"

/* ---- names ---- */

static bool is_literal(const char *p)
{
    return (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
           *p == '.' || *p == '-' || (*p == '_' && p[1] != 'x');
}

enum rc objects_key(const char *id, char out[BACKEND_KEY_MAX + 1], struct err *err)
{
    char key[(size_t)4 * 255 + sizeof(SUFFIX)];
    size_t n = 0;
    enum rc rc = name_check_id(id, err);
    if (rc)
        return rc;
    for (const char *p = id; *p; p++) {
        if (is_literal(p))
            key[n++] = *p;
        else
            n += (size_t)snprintf(key + n, sizeof(key) - n, ESCAPE "%02X", (unsigned char)*p);
    }
    memcpy(key + n, SUFFIX, sizeof(SUFFIX));
    if (n + sizeof(SUFFIX) - 1 > BACKEND_KEY_MAX)
        return err_set(err, RC_INVALID, "'%.64s' is too long for a name in object storage", id);
    memcpy(out, key, n + sizeof(SUFFIX));
    return RC_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

char *objects_id(const char *key)
{
    char again[BACKEND_KEY_MAX + 1], *id = mem_strdup(key), *to = id;
    size_t n = strlen(key);
    const char *end = key + n - (sizeof(SUFFIX) - 1);
    bool good = n >= sizeof(SUFFIX) && strcmp(end, SUFFIX) == 0 && !strchr(key, '/');
    for (const char *p = key; good && p < end;) {
        bool escaped =
            strncmp(p, ESCAPE, 2) == 0 && end - p >= 4 && hex(p[2]) >= 0 && hex(p[3]) >= 0;
        unsigned char byte = escaped ? (unsigned char)(hex(p[2]) * 16 + hex(p[3])) : 0;
        memcpy(to++, escaped ? (const char *)&byte : p, 1);
        p += escaped ? 4 : 1;
    }
    *to = '\0';
    /* One id has one key: what we would have written differently was not ours. */
    if (good && objects_key(id, again, NULL) == RC_OK && strcmp(again, key) == 0)
        return id;
    free(id);
    return NULL;
}

char *objects_record_key(const char *id)
{
    char key[BACKEND_KEY_MAX + 1];
    if (objects_key(id, key, NULL) != RC_OK)
        return NULL;
    size_t n = strlen(key) - (sizeof(SUFFIX) - 1);
    char *record = mem_asprintf(WORKINGSET_PREFIX "%.*s", (int)n, key);
    if (backend_check_key(record, NULL) == RC_OK)
        return record;
    free(record);
    return NULL;
}

char *objects_record_id(const char *key)
{
    size_t n = sizeof(WORKINGSET_PREFIX) - 1;
    if (strncmp(key, WORKINGSET_PREFIX, n) != 0)
        return NULL;
    CLEANUP(mem_freep) char *bundle = mem_asprintf("%s" SUFFIX, key + n);
    return objects_id(bundle);
}

/* ---- finding ---- */

struct bundle_source {
    struct store_source base;
    int spool;  /* the store's, opened anew */
    char *name; /* of our directory in it */
    char *record;
    struct backend_object *object;
};

static enum rc fetch_rest(struct store_source *base, int dir, struct err *err)
{
    struct bundle_source *s = (struct bundle_source *)base;
    bool all = false;
    return bundle_read(s->object, BUNDLE_ALL, dir, &all, err);
}

static void free_source(struct store_source *base)
{
    struct bundle_source *s = (struct bundle_source *)base;
    backend_closep(&s->object);
    if (s->name)
        (void)!fs_remove_tree(s->spool, s->name, NULL);
    fd_closep(&s->spool);
    free(s->name);
    free(s->record);
    free(s);
}

static void free_sourcep(struct bundle_source **s)
{
    if (*s)
        free_source(&(*s)->base);
}

static enum rc open_bundle(const struct store *s, const char *id, struct backend_object **out,
                           struct err *err)
{
    char key[BACKEND_KEY_MAX + 1];
    enum rc rc = objects_key(id, key, err);
    if (!rc)
        rc = backend_open(s->backend, key, out, err);
    if (rc == RC_NOT_FOUND)
        return err_set(err, RC_NOT_FOUND, "no checkpoint '%s' in %s", id, s->path);
    return rc;
}

/* A directory of its own in the spool. */
static enum rc make_dir(const struct store *s, struct bundle_source *source, int *out,
                        struct err *err)
{
    char name[17];
    rand_hex(name, 16);
    source->spool = sys_openat(s->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    if (source->spool < 0 || sys_mkdirat(s->dir, name, 0700) < 0)
        return err_sys(err, "make a directory in %s", s->spool.path);
    source->name = mem_strdup(name);
    int fd = sys_openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open a directory in %s", s->spool.path);
    *out = fd;
    return RC_OK;
}

/* What is in the documents that could be read.  rc: of the reading */
static enum rc judge(int dir, enum rc rc, enum identity *out, struct err *err)
{
    if (rc && rc != RC_CORRUPT)
        return rc;
    rc = identity_of_dir(dir, out, err);
    if (!rc && *out == IDENTITY_NOTHING)
        *out = IDENTITY_FOREIGN; /* an object, and nothing of ours in it */
    return rc;
}

enum rc objects_identify(struct store *s, const char *id, enum identity *out, struct err *err)
{
    CLEANUP(free_sourcep) struct bundle_source *source = mem_zalloc(sizeof(*source));
    struct err why = ERR_INIT;
    int fd = -1;
    source->spool = -1;
    enum rc rc = open_bundle(s, id, &source->object, &why);
    if (rc == RC_NOT_FOUND) {
        *out = IDENTITY_NOTHING;
        return RC_OK;
    }
    if (!rc)
        rc = make_dir(s, source, &fd, &why);
    CLEANUP(fd_closep) int dir = fd;
    if (!rc) {
        bool all = false;
        rc = bundle_read(source->object, BUNDLE_DOCUMENTS, dir, &all, &why);
        rc = judge(dir, rc, out, &why);
    }
    if (rc && err)
        *err = why;
    return rc;
}

enum rc objects_find(struct store *s, const char *id, struct store_entry **out, struct err *err)
{
    CLEANUP(free_sourcep) struct bundle_source *source = mem_zalloc(sizeof(*source));
    int fd = -1;
    *source = (struct bundle_source){
        .base = {.packs = s->backend, .fetch = fetch_rest, .free = free_source}, .spool = -1};
    enum rc rc = open_bundle(s, id, &source->object, err);
    if (!rc)
        rc = make_dir(s, source, &fd, err);
    CLEANUP(fd_closep) int dir = fd;
    if (rc)
        return rc;
    enum identity i;
    struct err why = ERR_INIT;
    enum rc read = bundle_read(source->object, BUNDLE_DOCUMENTS, dir, &source->base.complete, &why);
    rc = judge(dir, read, &i, err);
    if (!rc && i != IDENTITY_CHECKPOINT)
        return store_say_absent(s, id, i, err);
    if (read && err)
        *err = why;
    if (read || rc)
        return err_ctx(err, read ? read : rc, "checkpoint '%s' cannot be used", id);
    CLEANUP(mem_freep) char *path = store_location(s, id);
    source->base.record = source->record = objects_record_key(id);
    return store_adopt_from(fd_steal(&dir), id, path, &STEAL(source)->base, s->vault, out, err);
}

enum rc objects_read_file(struct store *s, const char *id, const char *name, size_t max,
                          struct buf *out, struct err *err)
{
    CLEANUP(free_sourcep) struct bundle_source *source = mem_zalloc(sizeof(*source));
    int fd = -1;
    bool all = false;
    source->spool = -1;
    enum rc rc = open_bundle(s, id, &source->object, err);
    if (!rc)
        rc = make_dir(s, source, &fd, err);
    CLEANUP(fd_closep) int dir = fd;
    if (!rc)
        rc = bundle_read(source->object, BUNDLE_ALL, dir, &all, err);
    return rc ? rc : fs_read_file(dir, name, max, out, err);
}

/* ---- listing, publishing, deleting ---- */

struct ids {
    char **list;
    size_t n;
};

static enum rc add_id(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct ids *ids = arg;
    char *id = objects_id(key);
    (void)size;
    (void)err;
    if (!id)
        return RC_OK;
    if (((ids->n + 1) & ids->n) == 0) /* one more for the end */
        ids->list = mem_realloc(ids->list, 2 * (ids->n + 1) * sizeof(*ids->list));
    ids->list[ids->n++] = id;
    return RC_OK;
}

enum rc objects_list(struct store *s, char ***out_ids, size_t *out_n, struct err *err)
{
    struct ids ids = {.list = mem_zalloc(sizeof(*ids.list))};
    enum rc rc = backend_list(s->backend, "", add_id, &ids, err);
    ids.list[ids.n] = NULL;
    if (rc) {
        store_free_ids(ids.list);
        return rc;
    }
    *out_ids = ids.list;
    *out_n = ids.n;
    return RC_OK;
}

enum rc objects_publish(struct store *s, const char *id, int dir, bool replace, struct err *err)
{
    char key[BACKEND_KEY_MAX + 1];
    enum identity i = IDENTITY_NOTHING;
    enum rc rc = objects_key(id, key, err);
    if (!rc && replace)
        rc = objects_identify(s, id, &i, err);
    if (!rc && i == IDENTITY_FOREIGN)
        return store_say_foreign(s, id, err);
    if (!rc && s->hold)
        rc = store_hold_check(s->hold, err);
    if (!rc)
        rc = bundle_write(dir, s->backend, key, replace, err);
    if (rc != RC_EXISTS)
        return rc;
    CLEANUP(store_entry_freep) struct store_entry *there = NULL;
    if (objects_find(s, id, &there, NULL) == RC_OK)
        return err_set(err, RC_EXISTS, "checkpoint '%s' was made by somebody else meanwhile", id);
    rc = objects_identify(s, id, &i, err);
    if (rc)
        return rc;
    if (i == IDENTITY_FOREIGN)
        return store_say_foreign(s, id, err);
    return bundle_write(dir, s->backend, key, true, err); /* a wreck makes way */
}

static void remove_record(struct store *s, const char *id)
{
    CLEANUP(mem_freep) char *record = objects_record_key(id);
    if (record)
        workingset_remove(&(struct workingset_place){-1, record, s->backend});
}

enum rc objects_delete(struct store *s, const char *id, struct err *err)
{
    char key[BACKEND_KEY_MAX + 1];
    enum identity i = IDENTITY_NOTHING;
    enum rc rc = objects_key(id, key, err);
    if (!rc)
        rc = objects_identify(s, id, &i, err);
    if (!rc && i == IDENTITY_CHECKPOINT)
        rc = backend_remove(s->backend, key, err);
    if (!rc && i == IDENTITY_CHECKPOINT)
        remove_record(s, id);
    if (rc == RC_NOT_FOUND || (!rc && i != IDENTITY_CHECKPOINT))
        return store_say_absent(s, id, i, err);
    return rc;
}
