#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/digest.h"
#include "codec/hex.h"
#include "codec/name.h"
#include "codec/secret.h"
#include "store/done.h"
#include "store/objects.h"
#include "store/quota.h"
#include "store/sealed.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FOLLOW_PAUSE_NS 3000000L
#define FOLLOW_MAX 64

/* A file that is hashed while it grows. */
struct followed {
    char *name;
    int fd;
    struct digest_follow *digest;
};

/* A file whose digest is known. */
struct told {
    char *name;
    uint64_t len;
    struct digest digest;
};

struct store_staging {
    struct store *store; /* borrowed */
    char *id, *name;     /* name: of the staging directory */
    uint64_t synced_ns;  /* sys_synced_ns() when it was made */
    int dir;
    bool published;
    const struct store_entry *instead; /* only in its place; NULL: of whatever is there */

    struct domain *domain; /* NULL: it will be in the clear */
    int clear;             /* where files are before they are encrypted */

    bool following;
    pthread_t watcher;
    _Atomic bool stop;
    struct followed followed[FOLLOW_MAX]; /* the watcher's until it is joined */
    size_t n_followed;

    struct told *told;
    size_t n_told;
};

static bool exists(const struct store *s, const char *id)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    return store_find((struct store *)(uintptr_t)s, id, &e, NULL) == RC_OK;
}

/* A checkpoint, or the wreck of one, may be there; something else must not make way. */
static enum rc check_place(struct store *s, const char *id, struct err *err)
{
    enum identity i;
    enum rc rc = store_identify(s, id, &i, err);
    if (!rc && i == IDENTITY_FOREIGN)
        rc = store_say_foreign(s, id, err);
    return rc;
}

/* The key is got now: nothing is frozen yet, and a key service takes its time. */
static enum rc prepare_encryption(struct store_staging *g, struct err *err)
{
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    struct key_id id;
    enum rc rc = keyring_current(g->store->vault->keys, g->store->backend, &id, key, err);
    if (!rc)
        rc = domain_new(&id, key, &g->domain, err);
    if (!rc)
        rc = fs_private_dir(&g->clear, err);
    return rc;
}

static enum rc found_key(void *arg, const char *key, uint64_t size, struct err *err)
{
    (void)key;
    (void)size;
    *(bool *)arg = true;
    return err_set(err, RC_CANCELLED, "one is enough");
}

enum rc store_is_encrypted(const struct store *s, bool *out, struct err *err)
{
    bool found = false;
    struct err why = ERR_INIT;
    enum rc rc = backend_list(s->backend, KEYRING_PREFIX, found_key, &found, &why);
    if (rc && !found) {
        if (err)
            *err = why;
        return rc;
    }
    *out = found;
    return RC_OK;
}

static enum rc check_clear(const struct store *s, struct err *err)
{
    bool encrypted = false;
    enum rc rc = s->clear_allowed ? RC_OK : store_is_encrypted(s, &encrypted, err);
    return rc || !encrypted
               ? rc
               : err_set(err, RC_DENIED,
                         "no key: checkpoints of this store are encrypted; give --key-file or "
                         "--key-command, or --unencrypted if this one shall be readable");
}

enum rc store_begin(struct store *s, const char *id, bool keep, struct store_staging **out,
                    struct err *err)
{
    enum rc rc = name_check_id(id, err);
    if (rc)
        return rc;
    store_sweep(s);
    if (keep && exists(s, id))
        return err_set(err, RC_EXISTS, "checkpoint '%s' is already in %s", id, s->path);
    rc = check_place(s, id, err);
    if (rc)
        return rc;
    CLEANUP(store_abortp) struct store_staging *g = mem_zalloc(sizeof(*g));
    *g = (struct store_staging){
        .store = s, .id = mem_strdup(id), .synced_ns = sys_synced_ns(), .dir = -1, .clear = -1};
    rc = s->vault && s->vault->keys ? prepare_encryption(g, err) : check_clear(s, err);
    if (rc)
        return rc;
    char *name = identity_staging_name(id);
    if (sys_mkdirat(s->dir, name, 0700) < 0) {
        rc = err_sys(err, "make '%s' in %s", name, s->path);
        free(name);
        return rc;
    }
    g->name = name;
    g->dir = sys_openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (g->dir < 0)
        return err_sys(err, "open '%s'", name);
    if (flock(g->dir, LOCK_EX | LOCK_NB) < 0)
        return err_sys(err, "lock '%s'", name);
    *out = STEAL(g);
    return RC_OK;
}

int store_staging_fd(const struct store_staging *g)
{
    return g->domain ? g->clear : g->dir;
}

const struct domain *store_staging_domain(const struct store_staging *g)
{
    return g->domain;
}

bool store_staging_is_alone(const struct store_staging *g)
{
    return !g->domain && g->store->vault && g->store->vault->signer;
}

/* ---- hashing while CRIU writes ---- */

static bool is_followed(const struct store_staging *g, const char *name)
{
    for (size_t i = 0; i < g->n_followed; i++)
        if (strcmp(g->followed[i].name, name) == 0)
            return true;
    return false;
}

static void follow(struct store_staging *g, const char *name)
{
    struct stat st;
    if (strncmp(name, "pages-", 6) != 0 || is_followed(g, name) || g->n_followed == FOLLOW_MAX ||
        fstatat(g->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (uint64_t)st.st_size < DIGEST_SEGMENT)
        return;
    CLEANUP(fd_closep) int fd = sys_openat(g->dir, name, O_RDONLY | O_NOFOLLOW, 0);
    struct followed *f = &g->followed[g->n_followed];
    if (fd < 0 || digest_follow_start(fd, 1, &f->digest, NULL) != RC_OK)
        return; /* then it is hashed at the end */
    f->fd = fd_steal(&fd);
    f->name = mem_strdup(name);
    g->n_followed++;
}

static void *watch(void *arg)
{
    struct store_staging *g = arg;
    while (!atomic_load(&g->stop)) {
        int fd = sys_openat(g->dir, ".", O_RDONLY | O_DIRECTORY, 0);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        if (!dir)
            break;
        for (const struct dirent *e; (e = readdir(dir));)
            follow(g, e->d_name);
        (void)closedir(dir);
        struct timespec pause = {0, FOLLOW_PAUSE_NS};
        (void)nanosleep(&pause, NULL);
    }
    return NULL;
}

void store_staging_follow(struct store_staging *g)
{
    g->following = pthread_create(&g->watcher, NULL, watch, g) == 0;
}

static void stop_watching(struct store_staging *g)
{
    if (!g->following)
        return;
    atomic_store(&g->stop, true);
    (void)pthread_join(g->watcher, NULL);
    g->following = false;
}

void store_staging_settled(struct store_staging *g)
{
    stop_watching(g);
}

void store_staging_digest(struct store_staging *g, const char *name, uint64_t len,
                          const struct digest *d)
{
    g->told = mem_realloc(g->told, (g->n_told + 1) * sizeof(*g->told));
    g->told[g->n_told++] = (struct told){.name = mem_strdup(name), .len = len, .digest = *d};
}

static bool told_digest(const struct store_staging *g, const char *name, uint64_t *out_len,
                        struct digest *out)
{
    for (size_t i = 0; i < g->n_told; i++)
        if (strcmp(g->told[i].name, name) == 0) {
            *out_len = g->told[i].len;
            *out = g->told[i].digest;
            return true;
        }
    return false;
}

/* The digest of a followed file, or RC_NOT_FOUND. */
static enum rc followed_digest(struct store_staging *g, const char *name, uint64_t *out_len,
                               struct digest *out, struct err *err)
{
    for (size_t i = 0; i < g->n_followed; i++) {
        struct followed *f = &g->followed[i];
        if (!f->digest || strcmp(f->name, name) != 0)
            continue;
        return digest_follow_finish(STEAL(f->digest), out_len, out, err);
    }
    return RC_NOT_FOUND;
}

static void drop_followed(struct store_staging *g)
{
    for (size_t i = 0; i < g->n_followed; i++) {
        struct followed *f = &g->followed[i];
        uint64_t len;
        struct digest d;
        if (f->digest)
            (void)!digest_follow_finish(STEAL(f->digest), &len, &d, NULL);
        fd_closep(&f->fd);
        free(f->name);
    }
    g->n_followed = 0;
}

/* ---- publishing ---- */

static enum rc digest_one(struct store_staging *g, const char *name, struct manifest *m,
                          uint64_t *total, struct err *err)
{
    struct digest d;
    uint64_t len = 0;
    CLEANUP(fd_closep) int fd = sys_openat(g->dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    enum rc rc = told_digest(g, name, &len, &d) ? RC_OK : followed_digest(g, name, &len, &d, err);
    if (rc == RC_NOT_FOUND)
        rc = digest_file(fd, 2, NULL, &len, &d, err);
    if (rc)
        return err_ctx(err, rc, "digest of '%s'", name);
    if (sys_fsync(fd) < 0)
        return err_sys(err, "fsync '%s'", name);
    *total += len;
    if (manifest_wants(name))
        manifest_add(m, name, len, &d);
    return RC_OK;
}

static enum rc digest_all(struct store_staging *g, struct manifest *m, uint64_t *total,
                          struct err *err)
{
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(g->dir, ".", &files, err);
    for (size_t i = 0; !rc && i < files.n; i++) {
        const char *name = files.name[i];
        struct stat st;
        if (fstatat(g->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            rc = err_sys(err, "'%s'", name);
        else if (S_ISREG(st.st_mode))
            rc = digest_one(g, name, m, total, err);
        else if (!S_ISDIR(st.st_mode)) /* a log's or socket's left-over is no part of it */
            (void)unlinkat(g->dir, name, 0);
    }
    return rc;
}

/* An earlier attempt to publish has left one. */
static void forget_file(struct manifest *m, const char *name)
{
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->files[i].name, name) == 0) {
            free(m->files[i].name);
            m->files[i] = m->files[--m->n];
            return;
        }
}

/* Which checkpoint this is the manifest of, and which making of it. */
static void bind_manifest(const struct store_staging *g, struct manifest *m, struct metadata *meta)
{
    char hex[2 * SEAL_INSTANCE + 1];
    free(m->id);
    m->id = mem_strdup(g->id);
    rand_bytes(m->instance, SEAL_INSTANCE);
    hex_format(m->instance, SEAL_INSTANCE, hex);
    free(meta->instance);
    meta->instance = mem_strdup(hex);
    m->sealed = g->domain != NULL;
    if (!g->domain)
        return;
    m->key = *domain_id(g->domain);
    hex_format(m->key.bytes, KEYFILE_ID, hex);
    free(meta->key);
    meta->key = mem_strdup(hex);
}

/* Which packs the memory lies in, for those who have no key. */
static enum rc name_packs(const struct store_staging *g, struct manifest *m, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    CLEANUP(memory_done) struct memory map = {0};
    enum rc rc = fs_read_file(g->clear, MEMORY_NAME, MEMORY_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (!rc)
        rc = memory_parse(text.data, text.len, &map, err);
    if (rc)
        return rc;
    m->packs = mem_zalloc((map.n_packs + 1) * sizeof(*m->packs));
    for (size_t i = 0; i < map.n_packs; i++)
        memcpy(m->packs[m->n_packs++], map.packs[i].name, sizeof(*m->packs));
    return RC_OK;
}

/* Everything that is readable goes, encrypted, into the staging directory. */
static enum rc encrypt_all(struct store_staging *g, struct metadata *meta, struct manifest *m,
                           uint64_t *total, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = name_packs(g, m, err);
    if (rc)
        return rc;
    metadata_format(meta, &text);
    rc = fs_write_whole(g->clear, METADATA_NAME, text.data, text.len, 0600, err);
    if (!rc)
        rc = sealed_write(g->domain, g->clear, g->dir, m, total, err);
    return rc;
}

static enum rc write_metadata(struct store_staging *g, const struct metadata *meta,
                              struct manifest *m, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct digest d;
    if (g->domain)
        metadata_format_bare(meta, &text);
    else
        metadata_format(meta, &text);
    enum rc rc = fs_write_atomic(g->dir, METADATA_NAME, text.data, text.len, 0644, err);
    if (rc)
        return rc;
    digest_file_bytes(text.data, text.len, &d);
    forget_file(m, METADATA_NAME);
    manifest_add(m, METADATA_NAME, text.len, &d);
    return RC_OK;
}

static enum rc write_manifest(struct store_staging *g, const struct manifest *m, struct err *err)
{
    const struct vault *v = g->store->vault;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(buf_done) struct buf signed_text = BUF_INIT;
    struct signature s;
    manifest_format(m, &text);
    enum rc rc = fs_write_atomic(g->dir, MANIFEST_NAME, text.data, text.len, 0644, err);
    if (rc || !v || !v->signer)
        return rc;
    rc = signature_make(v->signer, text.data, text.len, &s, err);
    if (rc)
        return rc;
    signature_format(&s, &signed_text);
    return fs_write_atomic(g->dir, MANIFEST_SIGNATURE, signed_text.data, signed_text.len, 0644,
                           err);
}

static enum rc write_documents(struct store_staging *g, struct metadata *meta, struct err *err)
{
    CLEANUP(manifest_done) struct manifest m = {0};
    const struct vault *v = g->store->vault;
    uint64_t total = 0;
    free(meta->checkpoint_id);
    meta->checkpoint_id = mem_strdup(g->id);
    if (g->domain || (v && v->signer))
        bind_manifest(g, &m, meta);
    enum rc rc = g->domain ? encrypt_all(g, meta, &m, &total, err) : digest_all(g, &m, &total, err);
    if (rc)
        return rc;
    meta->total_bytes = total + meta->packed_bytes;
    meta->sync_ns = sys_synced_ns() - g->synced_ns;
    rc = write_metadata(g, meta, &m, err);
    return rc ? rc : write_manifest(g, &m, err);
}

static enum rc write_done(struct store_staging *g, struct err *err)
{
    CLEANUP(mem_freep) char *path = store_location(g->store, g->id);
    struct done d = {.checkpoint_id = g->id, .checkpoint_path = path, .success = true};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    done_format(&d, &text);
    return fs_write_atomic(g->dir, DONE_NAME, text.data, text.len, 0644, err);
}

void store_staging_instead(struct store_staging *g, const struct store_entry *e)
{
    g->instead = e;
}

/* Nobody else exchanges or removes what has this name between the look at it and the rename. */
static enum rc exchange(struct store_staging *g, struct err *err)
{
    struct store *s = g->store;
    CLEANUP(fd_closep) int turn = -1;
    struct stat named, meant;
    enum rc rc = store_take_turn(s, g->instead != NULL, &turn, err);
    if (!rc && g->instead &&
        (fstat(store_entry_fd(g->instead), &meant) < 0 ||
         fstatat(s->dir, g->id, &named, AT_SYMLINK_NOFOLLOW) < 0 || named.st_dev != meant.st_dev ||
         named.st_ino != meant.st_ino))
        rc =
            err_set(err, RC_CONFLICT, "checkpoint '%s' is not the one any more that it was", g->id);
    if (!rc && sys_rename(s->dir, g->name, g->id, RENAME_EXCHANGE) < 0)
        rc = err_sys(err, "publish '%s'", g->id);
    return rc;
}

/* One rename (remote: one put) makes it visible.  What is in the way: a whole checkpoint (kept, or
 * exchanged and removed), the wreck of one that some other program has left (always exchanged), or
 * an empty directory, which a rename replaces.
 */
static enum rc publish(struct store_staging *g, bool replace, struct err *err)
{
    struct store *s = g->store;
    if (s->remote)
        return objects_publish(s, g->id, g->dir, replace, err);
    if (!g->instead && sys_rename(s->dir, g->name, g->id, RENAME_NOREPLACE) == 0)
        return RC_OK;
    if (!g->instead && errno != EEXIST)
        return err_sys(err, "publish '%s'", g->id);
    if (!replace && exists(s, g->id))
        return err_set(err, RC_EXISTS, "checkpoint '%s' was made by somebody else meanwhile",
                       g->id);
    enum identity i;
    enum rc rc = identity_of(s->dir, g->id, &i, err);
    if (rc)
        return rc;
    if (i == IDENTITY_FOREIGN)
        return store_say_foreign(s, g->id, err);
    if (i == IDENTITY_NOTHING && !g->instead)
        return sys_rename(s->dir, g->name, g->id, 0) == 0 ? RC_OK
                                                          : err_sys(err, "publish '%s'", g->id);
    rc = exchange(g, err);
    if (rc)
        return rc;
    if (g->instead) /* which nobody needs any more, unless somebody else reads it */
        (void)flock(store_entry_fd(g->instead), LOCK_UN);
    (void)!store_remove_unused(s, g->name, NULL); /* else the next sweep gets it */
    return RC_OK;
}

static enum rc finish(struct store_staging *g, bool replace, struct err *err)
{
    enum rc rc = RC_OK;
    if (sys_fsync(g->dir) < 0)
        rc = err_sys(err, "fsync the staging directory");
    if (!rc)
        rc = publish(g, replace, err);
    if (rc)
        return err_ctx(err, rc, "store in %s", g->store->path);
    if (g->store->remote) /* what is in the spool is a copy */
        return RC_OK;
    g->published = true;
    if (sys_fsync(g->store->dir) < 0)
        return err_sys(err, "fsync %s", g->store->path);
    return RC_OK;
}

enum rc store_commit(struct store_staging *g, struct metadata *m, bool replace, struct err *err)
{
    stop_watching(g);
    enum rc rc = write_documents(g, m, err);
    if (!rc) /* its packs are in the store by now */
        rc = store_fits(g->store, m->total_bytes - m->packed_bytes, err);
    if (!rc)
        rc = write_done(g, err);
    rc = rc ? err_ctx(err, rc, "store in %s", g->store->path) : finish(g, replace, err);
    m->sync_ns = sys_synced_ns() - g->synced_ns;
    return rc;
}

enum rc store_commit_copy(struct store_staging *g, bool replace, struct err *err)
{
    CLEANUP(manifest_done) struct manifest m = {0};
    uint64_t total = 0;
    enum rc rc = digest_all(g, &m, &total, err); /* which syncs them */
    if (!rc)
        rc = write_done(g, err);
    return rc ? err_ctx(err, rc, "store in %s", g->store->path) : finish(g, replace, err);
}

void store_abortp(struct store_staging **p)
{
    struct store_staging *g = STEAL(*p);
    if (!g)
        return;
    stop_watching(g);
    drop_followed(g);
    for (size_t i = 0; i < g->n_told; i++)
        free(g->told[i].name);
    free(g->told);
    if (!g->published && g->name)
        (void)!fs_remove_tree(g->store->dir, g->name, NULL);
    fd_closep(&g->dir);
    fd_closep(&g->clear);
    domain_freep(&g->domain);
    free(g->name);
    free(g->id);
    free(g);
}

/* Take the lock of a staging directory: its maker is dead if we get it.  Returns whether it was
 * left for being young. */
static bool sweep_one(struct store *s, const char *name)
{
    CLEANUP(fd_closep) int fd = sys_openat(s->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return false;
    /* Between its mkdir and its flock a maker looks dead: leave the very young alone. */
    if (time(NULL) - st.st_mtime < STORE_YOUNG_S)
        return true;
    (void)!fs_remove_tree(s->dir, name, NULL);
    return false;
}

size_t store_sweep(struct store *s)
{
    size_t young = 0;
    int fd = sys_openat(s->dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    if (!dir) {
        fd_closep(&fd);
        return 0;
    }
    for (const struct dirent *e; (e = readdir(dir));)
        if (identity_is_staging(e->d_name))
            young += sweep_one(s, e->d_name);
    (void)closedir(dir);
    return young;
}
