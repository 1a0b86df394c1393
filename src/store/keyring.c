#include "store/keyring.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/hex.h"
#include "codec/secret.h"
#include "store/key_command.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define ID_TEXT ((size_t)2 * KEYFILE_ID)
#define OBJECT_NAME_MAX (sizeof(KEYRING_PREFIX) + 2 * ID_TEXT + 2)
#define DATA_MAX 16U /* data keys that are remembered */
#define WRAPPINGS_MAX 4096

struct known_key {
    struct key_id id;
    uint8_t key[CIPHER_KEY];
};

/* In memory of codec/secret.h: all zero in a child of a fork, so not loaded. */
struct secrets {
    bool loaded;
    unsigned n_wrapping, n_data;
    struct known_key wrapping[KEYRING_FILES_MAX]; /* the first is the one to write with */
    struct known_key data[DATA_MAX];
};

struct keyring {
    char *file, *command;
    uint64_t timeout_ns;
    pthread_mutex_t lock; /* everything below */
    struct secrets *secrets;
};

/* ---- reading key files ---- */

static enum rc read_key(int dir, const char *name, struct known_key *out, struct err *err)
{
    struct stat st;
    size_t n = 0;
    CLEANUP(fd_closep) int fd = sys_openat(dir, name, O_RDONLY | O_NOCTTY | O_NONBLOCK, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_sys(err, "key file '%.200s'", name);
    if (!S_ISREG(st.st_mode))
        return err_set(err, RC_INVALID, "key file '%.200s' is no file", name);
    if (st.st_mode & 077)
        return err_set(err, RC_DENIED,
                       "key file '%.200s' may be read or written by others (mode %04o); make it "
                       "private: chmod 600, or for a Secret `defaultMode: 0400` in its volume",
                       name, (unsigned)st.st_mode & 07777);
    CLEANUP(secret_freep) uint8_t *text = secret_alloc(KEYFILE_MAX);
    enum rc rc = sys_read_full(fd, text, KEYFILE_MAX, &n, err);
    if (!rc)
        rc = keyfile_parse(text, n, out->key, err);
    if (!rc)
        rc = keyfile_wrapping_id(out->key, &out->id, err);
    return rc ? err_ctx(err, rc, "key file '%.200s'", name) : RC_OK;
}

static int by_text(const void *a, const void *b)
{
    const char *x = a, *y = b;
    bool first_x = strcmp(x, "key") == 0, first_y = strcmp(y, "key") == 0;
    return first_x != first_y ? first_y - first_x : strcmp(x, y);
}

/* A mounted Secret: links to files in a hidden directory. */
static enum rc read_directory(int fd, const char *path, struct secrets *s, struct err *err)
{
    char names[KEYRING_FILES_MAX][256];
    size_t n = 0;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        enum rc bad = err_sys(err, "read '%.200s'", path);
        fd_closep(&fd);
        return bad;
    }
    bool many = false;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        many = n == KEYRING_FILES_MAX;
        if (many)
            break;
        (void)snprintf(names[n++], sizeof(names[0]), "%s", e->d_name);
    }
    enum rc rc = RC_OK;
    if (many || n == 0)
        rc = err_set(err, RC_INVALID, "'%.200s' holds %s", path,
                     many ? "too many files for keys" : "no key");
    else
        qsort(names, n, sizeof(names[0]), by_text);
    for (size_t i = 0; !rc && i < n; i++) {
        rc = read_key(dirfd(dir), names[i], &s->wrapping[i], err);
        s->n_wrapping += !rc;
    }
    (void)closedir(dir);
    return rc;
}

/* The lock is held. */
static enum rc load(struct keyring *k, struct err *err)
{
    struct secrets *s = k->secrets;
    if (s->loaded)
        return RC_OK;
    s->n_wrapping = s->n_data = 0;
    if (k->file) {
        int fd = sys_openat(AT_FDCWD, k->file, O_RDONLY | O_DIRECTORY, 0);
        if (fd < 0 && errno == ENOENT)
            return err_set(err, RC_NOT_FOUND,
                           "key file '%.200s' is not there; `chrek key generate FILE` makes one",
                           k->file);
        if (fd < 0 && errno != ENOTDIR)
            return err_sys(err, "key file '%.200s'", k->file);
        enum rc rc = fd >= 0 ? read_directory(fd, k->file, s, err)
                             : read_key(AT_FDCWD, k->file, &s->wrapping[0], err);
        if (rc)
            return rc;
        s->n_wrapping += fd < 0;
    }
    s->loaded = true;
    return RC_OK;
}

enum rc keyring_open(const struct key_source *s, struct keyring **out, struct err *err)
{
    if (!s->file == !s->command)
        return err_set(err, RC_INVALID, "want a key file or a key command, and not both");
    CLEANUP(keyring_freep) struct keyring *k = mem_zalloc(sizeof(*k));
    if (s->file && s->file[0] != '/') { /* who goes into the background changes his directory */
        CLEANUP(mem_freep) char *cwd = getcwd(NULL, 0);
        k->file = cwd ? mem_asprintf("%s/%s", cwd, s->file) : NULL;
        if (!cwd)
            return err_sys(err, "the current directory");
    } else {
        k->file = mem_strdup(s->file);
    }
    k->command = mem_strdup(s->command);
    k->timeout_ns = s->timeout_ns ? s->timeout_ns : KEYRING_TIMEOUT_NS;
    (void)pthread_mutex_init(&k->lock, NULL);
    k->secrets = secret_alloc(sizeof(*k->secrets));
    enum rc rc = load(k, err);
    if (!rc)
        *out = STEAL(k);
    return rc;
}

void keyring_freep(struct keyring **p)
{
    struct keyring *k = STEAL(*p);
    if (!k)
        return;
    secret_freep(&k->secrets);
    (void)pthread_mutex_destroy(&k->lock);
    free(k->file);
    free(k->command);
    free(k);
}

/* ---- objects ---- */

static void object_name(const struct wrapped_key *w, char out[OBJECT_NAME_MAX])
{
    char data[ID_TEXT + 1], wrapping[ID_TEXT + 1];
    hex_format(w->data.bytes, KEYFILE_ID, data);
    hex_format(w->wrapping.bytes, KEYFILE_ID, wrapping);
    (void)snprintf(out, OBJECT_NAME_MAX, KEYRING_PREFIX "%s/%s", data, wrapping);
}

static enum rc read_object(struct backend *b, const char *name, struct wrapped_key *out,
                           struct err *err)
{
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(wrapped_key_done) struct wrapped_key w = {.kind = KEYFILE_BY_FILE};
    char want[OBJECT_NAME_MAX];
    enum rc rc = backend_open(b, name, &o, err);
    if (rc)
        return rc;
    if (o->size > KEYFILE_WRAPPED_MAX)
        return err_set(err, RC_CORRUPT, "wrapped key '%s' is too long", name);
    CLEANUP(mem_freep) uint8_t *data = mem_alloc((size_t)o->size + 1);
    rc = backend_read(o, 0, data, (size_t)o->size, err);
    if (!rc)
        rc = wrapped_key_parse(data, (size_t)o->size, &w, err);
    if (rc)
        return err_ctx(err, rc, "wrapped key '%s'", name);
    object_name(&w, want);
    if (strcmp(want, name) != 0)
        return err_set(err, RC_CORRUPT, "wrapped key '%s' is another one's", name);
    *out = w;
    w.blob = NULL;
    return RC_OK;
}

struct listing {
    struct backend *backend;
    struct wrapped_key *list;
    size_t n;
};

static enum rc visit(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct listing *l = arg;
    struct wrapped_key w;
    (void)size;
    if (l->n == WRAPPINGS_MAX)
        return err_set(err, RC_TOO_BIG, "the store has more than %d wrapped keys", WRAPPINGS_MAX);
    enum rc rc = read_object(l->backend, key, &w, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* removed meanwhile */
    if (rc)
        return rc;
    l->list = mem_realloc(l->list, (l->n + 1) * sizeof(*l->list));
    l->list[l->n++] = w;
    return RC_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct wrapped_key *x = a, *y = b;
    int data = memcmp(x->data.bytes, y->data.bytes, KEYFILE_ID);
    return data ? data : memcmp(x->wrapping.bytes, y->wrapping.bytes, KEYFILE_ID);
}

static void listing_done(struct listing *l)
{
    for (size_t i = 0; i < l->n; i++)
        wrapped_key_done(&l->list[i]);
    free(l->list);
}

/* id: only wrappings of this data key; NULL = all */
static enum rc list_wrappings(struct backend *b, const struct key_id *id, struct listing *out,
                              struct err *err)
{
    char prefix[OBJECT_NAME_MAX] = KEYRING_PREFIX, hex[ID_TEXT + 1];
    CLEANUP(listing_done) struct listing l = {.backend = b};
    if (id) {
        hex_format(id->bytes, KEYFILE_ID, hex);
        (void)snprintf(prefix, sizeof(prefix), KEYRING_PREFIX "%s/", hex);
    }
    enum rc rc = backend_list(b, prefix, visit, &l, err);
    if (rc)
        return rc;
    if (l.n)
        qsort(l.list, l.n, sizeof(*l.list), by_name);
    *out = l;
    l = (struct listing){.n = 0};
    return RC_OK;
}

enum rc keyring_list(struct backend *b, struct wrapped_key **out, size_t *out_n, struct err *err)
{
    struct listing l;
    enum rc rc = list_wrappings(b, NULL, &l, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < l.n; i++) {
        free(l.list[i].blob);
        l.list[i].blob = NULL;
    }
    *out = l.list;
    *out_n = l.n;
    return RC_OK;
}

/* ---- wrapping ---- */

static const struct known_key *wrapping_of(const struct keyring *k, const struct wrapped_key *w)
{
    for (unsigned i = 0; i < k->secrets->n_wrapping; i++)
        if (memcmp(k->secrets->wrapping[i].id.bytes, w->wrapping.bytes, KEYFILE_ID) == 0)
            return &k->secrets->wrapping[i];
    return NULL;
}

/* The lock is held. */
static bool fits(const struct keyring *k, const struct wrapped_key *w)
{
    return w->kind == KEYFILE_BY_SERVICE ? k->command != NULL : wrapping_of(k, w) != NULL;
}

bool keyring_fits(struct keyring *k, const struct wrapped_key *w)
{
    (void)pthread_mutex_lock(&k->lock);
    bool yes = load(k, NULL) == RC_OK && fits(k, w);
    (void)pthread_mutex_unlock(&k->lock);
    return yes;
}

static enum rc ask_service(const struct keyring *k, const struct wrapped_key *w,
                           uint8_t out[CIPHER_KEY], struct err *err)
{
    CLEANUP(secret_freep) uint8_t *answer = secret_alloc(CIPHER_KEY);
    struct key_id id;
    size_t n = 0;
    enum rc rc = key_command_run(k->command, false, k->timeout_ns, w->blob, w->blob_len, answer,
                                 CIPHER_KEY, &n, err);
    if (rc)
        return rc;
    rc = n == CIPHER_KEY ? keyfile_data_id(answer, &id, err) : RC_OK;
    if (rc)
        return rc;
    if (n != CIPHER_KEY || memcmp(id.bytes, w->data.bytes, KEYFILE_ID) != 0)
        return err_set(err, RC_CORRUPT,
                       "key command '%.64s' answered something that is not the key", k->command);
    memcpy(out, answer, CIPHER_KEY);
    return RC_OK;
}

static void remember(struct secrets *s, const struct key_id *id, const uint8_t key[CIPHER_KEY])
{
    if (s->n_data == DATA_MAX)
        s->n_data = 0;
    s->data[s->n_data].id = *id;
    memcpy(s->data[s->n_data].key, key, CIPHER_KEY);
    s->n_data++;
}

static bool recall(const struct secrets *s, const struct key_id *id, uint8_t out[CIPHER_KEY])
{
    for (unsigned i = 0; i < s->n_data; i++)
        if (memcmp(s->data[i].id.bytes, id->bytes, KEYFILE_ID) == 0) {
            memcpy(out, s->data[i].key, CIPHER_KEY);
            return true;
        }
    return false;
}

/* Open a wrapping that fits; the lock is held. */
static enum rc unwrap(struct keyring *k, const struct wrapped_key *w, uint8_t out[CIPHER_KEY],
                      struct err *err)
{
    if (recall(k->secrets, &w->data, out))
        return RC_OK;
    enum rc rc = w->kind == KEYFILE_BY_SERVICE
                     ? ask_service(k, w, out, err)
                     : wrapped_key_open(w, wrapping_of(k, w)->key, out, err);
    if (!rc)
        remember(k->secrets, &w->data, out);
    return rc;
}

/* What the service gives for this key, looked at before it is relied upon. */
static enum rc wrap_by_service(const struct keyring *k, const uint8_t key[CIPHER_KEY],
                               struct wrapped_key *out, struct err *err)
{
    CLEANUP(secret_freep) uint8_t *back = secret_alloc(CIPHER_KEY);
    CLEANUP(wrapped_key_done)
    struct wrapped_key w = {.kind = KEYFILE_BY_SERVICE,
                            .made_at = (uint64_t)time(NULL),
                            .blob = mem_alloc(KEYFILE_BLOB_MAX)};
    enum rc rc = keyfile_data_id(key, &w.data, err);
    rand_bytes(w.wrapping.bytes, KEYFILE_ID);
    if (!rc)
        rc = key_command_run(k->command, true, k->timeout_ns, key, CIPHER_KEY, w.blob,
                             KEYFILE_BLOB_MAX, &w.blob_len, err);
    if (!rc)
        rc = ask_service(k, &w, back, err);
    if (rc)
        return rc;
    *out = w;
    w.blob = NULL;
    return RC_OK;
}

/* Wrap a data key and put it into the store; the lock is held. */
static enum rc put_wrapping(const struct keyring *k, struct backend *b,
                            const uint8_t key[CIPHER_KEY], struct err *err)
{
    CLEANUP(wrapped_key_done) struct wrapped_key w = {.kind = KEYFILE_BY_FILE};
    CLEANUP(wrapped_key_done) struct wrapped_key back = {.kind = KEYFILE_BY_FILE};
    CLEANUP(secret_freep) uint8_t *again = secret_alloc(CIPHER_KEY);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    char name[OBJECT_NAME_MAX];
    enum rc rc = k->command ? wrap_by_service(k, key, &w, err)
                            : wrapped_key_seal(k->secrets->wrapping[0].key, key,
                                               (uint64_t)time(NULL), &w, err);
    if (rc)
        return rc;
    wrapped_key_format(&w, &text);
    object_name(&w, name);
    rc = backend_put(b, name, text.data, text.len, err);
    if (rc == RC_EXISTS)
        rc = RC_OK; /* an attempt before this one came so far */
    if (!rc)
        rc = read_object(b, name, &back, err);
    if (!rc && back.kind == KEYFILE_BY_FILE)
        rc = wrapped_key_open(&back, k->secrets->wrapping[0].key, again, err);
    return rc;
}

/* ---- finding ---- */

static enum rc find(struct keyring *k, struct backend *b, const struct key_id *id,
                    uint8_t out[CIPHER_KEY], struct err *err)
{
    CLEANUP(listing_done) struct listing l = {.n = 0};
    char hex[ID_TEXT + 1];
    if (recall(k->secrets, id, out))
        return RC_OK;
    enum rc rc = list_wrappings(b, id, &l, err);
    if (rc)
        return rc;
    hex_format(id->bytes, KEYFILE_ID, hex);
    if (l.n == 0)
        return err_set(err, RC_CORRUPT,
                       "data key %.16s... is missing: the store has no '" KEYRING_PREFIX "%s'", hex,
                       hex);
    struct err why = ERR_INIT;
    rc = RC_NOT_FOUND;
    for (size_t i = 0; rc && i < l.n; i++) /* several: one that opens is enough */
        if (fits(k, &l.list[i]))
            rc = unwrap(k, &l.list[i], out, &why);
    if (rc && rc != RC_NOT_FOUND && err)
        *err = why;
    if (rc == RC_NOT_FOUND)
        return err_set(
            err, RC_DENIED,
            "wrong key: data key %.16s... is wrapped with another key than the one given; "
            "`chrek key list` tells which keys open what",
            hex);
    return rc;
}

enum rc keyring_find(struct keyring *k, struct backend *b, const struct key_id *id,
                     uint8_t out[CIPHER_KEY], struct err *err)
{
    (void)pthread_mutex_lock(&k->lock);
    enum rc rc = load(k, err);
    if (!rc)
        rc = find(k, b, id, out, err);
    (void)pthread_mutex_unlock(&k->lock);
    return rc;
}

/* A key of a service that opens nothing for the moment is no reason to begin a new domain. */
static enum rc current(struct keyring *k, struct backend *b, struct key_id *out_id,
                       uint8_t out[CIPHER_KEY], struct err *err)
{
    CLEANUP(listing_done) struct listing l = {.n = 0};
    struct err why = ERR_INIT;
    enum rc rc = list_wrappings(b, NULL, &l, err), last = RC_NOT_FOUND;
    if (rc)
        return rc;
    for (size_t i = 0; i < l.n; i++) {
        const struct wrapped_key *w = &l.list[i];
        bool ours = k->command ? w->kind == KEYFILE_BY_SERVICE
                               : wrapping_of(k, w) == &k->secrets->wrapping[0];
        if (!ours)
            continue;
        last = unwrap(k, w, out, &why);
        if (!last)
            *out_id = w->data;
        if (!last)
            return RC_OK;
    }
    if (last != RC_NOT_FOUND && err)
        *err = why;
    if (last != RC_NOT_FOUND)
        return last;
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    struct key_id id;
    rand_bytes(key, CIPHER_KEY);
    rc = keyfile_data_id(key, &id, err);
    if (!rc)
        rc = put_wrapping(k, b, key, err);
    if (rc)
        return rc;
    remember(k->secrets, &id, key);
    memcpy(out, key, CIPHER_KEY);
    *out_id = id;
    return RC_OK;
}

enum rc keyring_current(struct keyring *k, struct backend *b, struct key_id *out_id,
                        uint8_t out[CIPHER_KEY], struct err *err)
{
    (void)pthread_mutex_lock(&k->lock);
    enum rc rc = load(k, err);
    if (!rc)
        rc = current(k, b, out_id, out, err);
    (void)pthread_mutex_unlock(&k->lock);
    return rc ? err_ctx(err, rc, "key to encrypt with") : RC_OK;
}

/* ---- rotation ---- */

static bool same_key(const struct key_id *a, const struct key_id *b)
{
    return memcmp(a->bytes, b->bytes, KEYFILE_ID) == 0;
}

/* Whether `to` has a wrapping of this data key already. */
static bool has_wrapping(const struct keyring *to, const struct listing *l, const struct key_id *id)
{
    for (size_t i = 0; i < l->n; i++)
        if (same_key(&l->list[i].data, id) && !to->command &&
            wrapping_of(to, &l->list[i]) == &to->secrets->wrapping[0])
            return true;
    return false;
}

static enum rc rotate_one(struct keyring *from, struct keyring *to, struct backend *b,
                          const struct wrapped_key *w, bool there, bool keep,
                          struct keyring_rotation *r, struct err *err)
{
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    char name[OBJECT_NAME_MAX];
    enum rc rc = unwrap(from, w, key, err);
    if (!rc && !there)
        rc = put_wrapping(to, b, key, err);
    if (rc)
        return rc;
    r->keys++;
    object_name(w, name);
    bool itself = !to->command && w->kind == KEYFILE_BY_FILE &&
                  wrapping_of(to, w) == &to->secrets->wrapping[0];
    if (keep || itself)
        return RC_OK;
    rc = backend_remove(b, name, err);
    r->removed += !rc;
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

static enum rc rotate(struct keyring *from, struct keyring *to, struct backend *b, bool keep,
                      struct keyring_rotation *out, struct err *err)
{
    CLEANUP(listing_done) struct listing l = {.n = 0};
    struct keyring_rotation r = {.keys = 0};
    enum rc rc = list_wrappings(b, NULL, &l, err);
    bool done = false; /* by an attempt before this one */
    for (size_t i = 0; !rc && i < l.n; i++) {
        done = done || fits(to, &l.list[i]);
        if (!fits(from, &l.list[i]))
            continue;
        bool there = has_wrapping(to, &l, &l.list[i].data);
        rc = rotate_one(from, to, b, &l.list[i], there, keep, &r, err);
    }
    if (!rc && r.keys == 0 && !done)
        rc = err_set(err, RC_DENIED,
                     "the old key opens no data key of this store; `chrek key list` "
                     "tells which keys open what");
    if (!rc)
        *out = r;
    return rc;
}

enum rc keyring_rotate(struct keyring *from, struct keyring *to, struct backend *b, bool keep,
                       struct keyring_rotation *out, struct err *err)
{
    if (from == to)
        return err_set(err, RC_INVALID, "the old key and the new one are the same");
    (void)pthread_mutex_lock(&from->lock);
    (void)pthread_mutex_lock(&to->lock);
    enum rc rc = load(from, err);
    if (!rc)
        rc = load(to, err);
    if (!rc)
        rc = rotate(from, to, b, keep, out, err);
    (void)pthread_mutex_unlock(&to->lock);
    (void)pthread_mutex_unlock(&from->lock);
    return rc;
}
