#include "store/gc.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/digest.h"
#include "codec/name.h"
#include "store/manifest.h"
#include "store/memory.h"
#include "store/objects.h"
#include "store/pack.h"
#include "store/store_priv.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef char pack_name_text[MEMORY_PACK_NAME_LEN + 1];

struct marks {
    pack_name_text *names;
    size_t n;
    struct store *store;
    struct store_hold *hold;
    bool dry;
    char *const *without; /* NULL-terminated: as if these were gone; or NULL */
    struct store_collected *totals;
    pack_name_text *garbage;
    size_t n_garbage;
};

static int by_name(const void *a, const void *b)
{
    return memcmp(a, b, MEMORY_PACK_NAME_LEN);
}

static void add_name(pack_name_text **list, size_t *n, const char *name)
{
    if ((*n & (*n - 1)) == 0)
        *list = mem_realloc(*list, (*n ? *n * 2 : 1) * sizeof(**list));
    memcpy((*list)[(*n)++], name, MEMORY_PACK_NAME_LEN + 1);
}

/* The memory map of an encrypted checkpoint is not to be read: its manifest names the packs. */
static enum rc mark_sealed(struct marks *m, const char *id, struct err *err)
{
    CLEANUP(manifest_done) struct manifest manifest = {0};
    CLEANUP(buf_done) struct buf text = {.max = MANIFEST_MAX};
    enum rc rc = store_read_file(m->store, id, MANIFEST_NAME, MANIFEST_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* another implementation's, or just deleted */
    if (!rc)
        rc = manifest_parse(buf_str(&text), text.len, &manifest, err);
    if (rc)
        return err_ctx(err, rc, "what checkpoint '%s' needs cannot be told", id);
    if (!manifest.sealed && manifest_find(&manifest, MEMORY_NAME))
        return err_set(err, RC_CORRUPT,
                       "what checkpoint '%s' needs cannot be told: '" MEMORY_NAME "' is missing",
                       id);
    for (size_t i = 0; i < manifest.n_packs; i++)
        add_name(&m->names, &m->n, manifest.packs[i]);
    return RC_OK;
}

/* Whether a memory map is what the manifest says, where there is one that says something: a damaged
 * map may name other packs than its checkpoint needs, once it is repaired. */
static enum rc check_map(struct store *s, const char *name, const struct buf *map, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(manifest_done) struct manifest m = {0};
    struct digest d;
    enum rc rc = store_read_file(s, name, MANIFEST_NAME, MANIFEST_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (!rc)
        rc = manifest_parse(buf_str(&text), text.len, &m, err);
    if (rc)
        return rc;
    const struct manifest_file *f = manifest_find(&m, MEMORY_NAME);
    digest_file_bytes(map->data, map->len, &d);
    if (f && !digest_equal(&d, &f->digest))
        return err_set(err, RC_CORRUPT, "'" MEMORY_NAME "' does not match the manifest");
    return RC_OK;
}

static bool is_without(const struct marks *m, const char *id)
{
    char *const *p = m->without;
    while (p && *p && strcmp(*p, id) != 0)
        p++;
    return p && *p;
}

/* What a checkpoint refers to counts whether or not it can be used otherwise. */
static enum rc mark(struct marks *m, const char *name, struct err *err)
{
    CLEANUP(memory_done) struct memory map = {0};
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    enum rc rc = store_read_file(m->store, name, MEMORY_NAME, MEMORY_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return mark_sealed(m, name, err);
    if (!rc)
        rc = memory_parse(text.data, text.len, &map, err);
    if (!rc)
        rc = check_map(m->store, name, &text, err);
    if (rc)
        return err_ctx(err, rc, "what checkpoint '%s' needs cannot be told", name);
    for (size_t i = 0; i < map.n_packs; i++)
        add_name(&m->names, &m->n, map.packs[i].name);
    return RC_OK;
}

/* A deleted checkpoint that is still being read has got a staging name; a sweep has removed all
 * others, but those too young to tell. */
static enum rc mark_directory(struct marks *m, struct err *err)
{
    int fd = sys_openat(m->store->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    enum rc rc = RC_OK;
    if (!dir) {
        rc = err_sys(err, "read the directory of checkpoints");
        fd_closep(&fd);
        return rc;
    }
    for (const struct dirent *e; !rc && (e = readdir(dir));) {
        struct stat st;
        bool staged = identity_is_staging(e->d_name);
        enum identity i = IDENTITY_CHECKPOINT;
        if ((!staged && !name_is_id(e->d_name)) ||
            fstatat(m->store->dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
            continue;
        if (is_without(m, e->d_name))
            continue;
        if (!staged && identity_of(m->store->dir, e->d_name, &i, NULL) == RC_OK &&
            i != IDENTITY_CHECKPOINT)
            continue; /* its "manifest" is another one */
        rc = mark(m, e->d_name, err);
        if (staged && rc == RC_CORRUPT)
            rc = RC_OK; /* the wreck of one; nobody reads it */
    }
    (void)closedir(dir);
    return rc;
}

static enum rc mark_all(struct marks *m, struct err *err)
{
    char **ids = NULL;
    if (!m->store->remote)
        return mark_directory(m, err);
    enum rc rc = store_list(m->store, &ids, err);
    for (char **id = ids; !rc && *id; id++)
        if (!is_without(m, *id))
            rc = mark(m, *id, err);
    if (ids)
        store_free_ids(ids);
    return rc;
}

static enum rc judge(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct marks *m = arg;
    const char *name = strrchr(key, '/') + 1;
    char own[PACK_KEY_LEN];
    (void)err;
    if (strlen(name) != MEMORY_PACK_NAME_LEN ||
        strspn(name, "0123456789abcdef") != MEMORY_PACK_NAME_LEN)
        return RC_OK;
    pack_key(name, own);
    if (strcmp(own, key) != 0) /* a pack lies where its name says */
        return RC_OK;
    if (m->n && bsearch(name, m->names, m->n, sizeof(*m->names), by_name)) {
        m->totals->kept++;
        m->totals->kept_bytes += size;
    } else {
        m->totals->packs++;
        m->totals->bytes += size;
        add_name(&m->garbage, &m->n_garbage, name);
    }
    return RC_OK;
}

static enum rc collect(struct marks *m, struct err *err)
{
    enum rc rc = mark_all(m, err);
    if (!rc && m->n)
        qsort(m->names, m->n, sizeof(*m->names), by_name);
    if (!rc)
        rc = backend_list(m->store->backend, PACK_PREFIX, judge, m, err);
    for (size_t i = 0; !rc && !m->dry && i < m->n_garbage; i++) {
        char key[PACK_KEY_LEN];
        pack_key(m->garbage[i], key);
        rc = store_hold_check(m->hold, err);
        if (!rc)
            rc = backend_remove(m->store->backend, key, err);
        rc = rc == RC_NOT_FOUND ? RC_OK : rc;
    }
    return rc;
}

struct records {
    char **ids;  /* of the checkpoints that there are */
    char **keys; /* of records of others */
    size_t n;
};

static enum rc judge_record(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct records *r = arg;
    CLEANUP(mem_freep) char *of = objects_record_id(key);
    char *const *id = r->ids;
    (void)size;
    (void)err;
    while (of && *id && strcmp(*id, of) != 0)
        id++;
    if (!of || *id)
        return RC_OK;
    if ((r->n & (r->n - 1)) == 0)
        r->keys = mem_realloc(r->keys, (r->n ? r->n * 2 : 1) * sizeof(*r->keys));
    r->keys[r->n++] = mem_strdup(key);
    return RC_OK;
}

/* In object storage: what restores have recorded of checkpoints that were deleted meanwhile. */
static enum rc collect_records(const struct marks *m, struct err *err)
{
    struct records r = {.n = 0};
    if (!m->store->remote || m->dry)
        return RC_OK;
    enum rc rc = store_list(m->store, &r.ids, err);
    if (!rc)
        rc = backend_list(m->store->backend, WORKINGSET_PREFIX, judge_record, &r, err);
    for (size_t i = 0; i < r.n; i++) {
        if (!rc)
            rc = backend_remove(m->store->backend, r.keys[i], err);
        rc = rc == RC_NOT_FOUND ? RC_OK : rc;
        free(r.keys[i]);
    }
    free(r.keys);
    if (r.ids)
        store_free_ids(r.ids);
    return rc;
}

static enum rc run(struct store *s, bool dry, char *const *without, struct store_collected *out,
                   struct err *err)
{
    struct store_collected totals = {0};
    struct marks m = {.store = s, .dry = dry, .without = without, .totals = &totals};
    if (!dry && !s->remote)
        totals.young = store_sweep(s);
    if (!s->remote && faccessat(s->dir, STORE_PACKS, F_OK, AT_SYMLINK_NOFOLLOW) < 0 &&
        errno == ENOENT) {
        *out = totals; /* a store of plain checkpoints stays as it is */
        return RC_OK;
    }
    enum rc rc = store_hold_packs(s, true, &m.hold, err);
    if (!rc)
        rc = collect(&m, err);
    if (!rc)
        rc = collect_records(&m, err);
    store_hold_freep(&m.hold);
    free(m.names);
    free(m.garbage);
    if (rc)
        return err_ctx(err, rc, "collect in %s", s->path);
    *out = totals;
    return RC_OK;
}

enum rc store_gc(struct store *s, bool dry, struct store_collected *out, struct err *err)
{
    return run(s, dry, NULL, out, err);
}

enum rc store_gc_without(struct store *s, char *const *ids, struct store_collected *out,
                         struct err *err)
{
    return run(s, true, ids, out, err);
}
