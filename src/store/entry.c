#include "backend/drivers.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/hex.h"
#include "codec/secret.h"
#include "store/done.h"
#include "store/page_scan.h"
#include "store/sealed.h"
#include "store/store_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct store_entry {
    int dir;
    char *id, *path;
    bool has_manifest;
    struct metadata metadata;
    struct manifest manifest;    /* of what is in the directory */
    struct store_source *source; /* NULL: the directory is the checkpoint */

    const struct cancel *cancel;
    const struct vault *vault; /* NULL: nothing was brought along */
    struct sealed *sealed;     /* an encrypted one, opened */
    enum rc locked;            /* an encrypted one, why it is not open */
    struct err why;
    int revealed; /* a directory in memory for store_entry_reveal(); -1 before */

    struct backend *packs; /* what lies beside the directory, once somebody has asked */
    /* of a packed checkpoint, once somebody has asked */
    struct memory memory;
    struct page_reader *pages;
};

/* A document: a file, and no link to one. */
static enum rc read_document(const struct store_entry *e, const char *name, size_t max,
                             struct buf *out, struct err *err)
{
    struct stat st;
    if (fstatat(e->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && !S_ISREG(st.st_mode))
        return err_set(err, RC_CORRUPT, "'%s' is no file", name);
    return fs_read_file(e->dir, name, max, out, err);
}

static enum rc read_done(struct store_entry *e, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = read_document(e, DONE_NAME, DONE_MAX, &text, err);
    return rc ? rc : done_check(buf_str(&text), text.len, err);
}

static enum rc replayed(struct err *err)
{
    return err_set(err, RC_CORRUPT,
                   "replayed manifest: it is that of another making of this "
                   "checkpoint, perhaps an older one that was put back");
}

/* Compared before it is parsed.  Of a manifest that was put back neither the digest is right nor
 * the making that it names. */
static enum rc check_metadata(const struct store_entry *e, const struct buf *text, struct err *err)
{
    const struct manifest_file *f = manifest_find(&e->manifest, METADATA_NAME);
    char instance[2 * SEAL_INSTANCE + 1];
    struct digest d;
    digest_file_bytes(text->data, text->len, &d);
    if (f && f->size == text->len && digest_equal(&d, &f->digest))
        return RC_OK;
    hex_format(e->manifest.instance, SEAL_INSTANCE, instance);
    if (e->manifest.id && !strstr(buf_str(text), instance))
        return replayed(err);
    return err_set(err, RC_CORRUPT,
                   "'" METADATA_NAME "' is damaged: its bytes do not match the manifest");
}

static enum rc read_metadata(struct store_entry *e, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = read_document(e, METADATA_NAME, METADATA_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return err_set(err, RC_CORRUPT, "it has no " METADATA_NAME);
    if (!rc && e->has_manifest)
        rc = check_metadata(e, &text, err);
    if (!rc)
        rc = metadata_parse(buf_str(&text), text.len, &e->metadata, err);
    if (!rc && e->metadata.ours && !e->has_manifest) /* the reference implementation writes none */
        rc = err_set(err, RC_CORRUPT, "it has no " MANIFEST_NAME);
    return rc;
}

/* Looks at nothing but the bytes: before the signature counts, nothing else is read. */
static enum rc check_signature(const struct store_entry *e, const struct buf *manifest,
                               struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct signature s;
    if (!e->vault || e->vault->trust.n == 0)
        return RC_OK;
    enum rc rc = read_document(e, MANIFEST_SIGNATURE, SIGNATURE_TEXT_MAX, &text, err);
    if (rc == RC_NOT_FOUND)
        return err_set(err, RC_DENIED,
                       "it is unsigned, and only signed checkpoints are accepted "
                       "here; sign with --sign-key when it is made");
    if (!rc)
        rc = signature_parse(buf_str(&text), text.len, &s, err);
    if (!rc)
        rc = signature_check(&e->vault->trust, &s, manifest->data, manifest->len, err);
    return rc ? err_ctx(err, rc, MANIFEST_SIGNATURE) : RC_OK;
}

static enum rc read_manifest(struct store_entry *e, bool marked, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = read_document(e, MANIFEST_NAME, MANIFEST_MAX, &text, err);
    bool there = rc != RC_NOT_FOUND;
    if (rc && there)
        return rc;
    rc = check_signature(e, &text, err);
    if (rc || !there)
        return rc;
    rc = manifest_parse(buf_str(&text), text.len, &e->manifest, err);
    if (!rc && marked && e->manifest.id && strcmp(e->manifest.id, e->id) != 0)
        rc = err_set(err, RC_CORRUPT, "replayed manifest: it is that of checkpoint '%.128s'",
                     e->manifest.id);
    e->has_manifest = !rc;
    return rc;
}

/* What all documents say of themselves. */
static enum rc check_binding(const struct store_entry *e, struct err *err)
{
    const struct manifest *m = &e->manifest;
    char instance[2 * SEAL_INSTANCE + 1], key[2 * KEYFILE_ID + 1];
    if (!m->id)
        return e->metadata.key || e->metadata.instance
                   ? err_set(err, RC_CORRUPT, MANIFEST_NAME " is not of this checkpoint")
                   : RC_OK;
    hex_format(m->instance, SEAL_INSTANCE, instance);
    hex_format(m->key.bytes, KEYFILE_ID, key);
    if (!e->metadata.instance || strcmp(e->metadata.instance, instance) != 0)
        return replayed(err);
    if (!e->metadata.checkpoint_id || strcmp(e->metadata.checkpoint_id, m->id) != 0 ||
        m->sealed != (e->metadata.key != NULL) || (m->sealed && strcmp(e->metadata.key, key) != 0))
        return err_set(err, RC_CORRUPT,
                       MANIFEST_NAME " and " METADATA_NAME " contradict each other");
    return RC_OK;
}

static enum rc check_sizes(const struct store_entry *e, struct err *err)
{
    for (size_t i = 0; i < e->manifest.n; i++) {
        const struct manifest_file *f = &e->manifest.files[i];
        struct stat st;
        if (fstatat(e->dir, f->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            return err_set(err, RC_CORRUPT, "'%s' is missing", f->name);
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size)
            return err_set(err, RC_CORRUPT, "'%s' has %jd bytes instead of %" PRIu64, f->name,
                           (intmax_t)st.st_size, f->size);
    }
    return RC_OK;
}

static bool has_file(const struct store_entry *e, const char *name)
{
    struct stat st;
    return fstatat(e->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode);
}

/* What the metadata says is there, also where no manifest vouches for it. */
static enum rc check_announced(const struct store_entry *e, struct err *err)
{
    const struct metadata *m = &e->metadata;
    const struct {
        bool announced;
        const char *name, *other;
    } files[] = {{m->has_rootfs_diff, "rootfs-diff.tar", NULL},
                 {m->has_deleted_files, "deleted-files.json", "deleted.files"},
                 {m->has_shm, "tmpfs-dev-shm.tar", NULL},
                 {m->packed, MEMORY_NAME, NULL}};
    if (e->manifest.sealed)
        return RC_OK; /* they have other names, and its manifest all of them */
    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (files[i].announced && !has_file(e, files[i].name) &&
            !(files[i].other && has_file(e, files[i].other)))
            return err_set(err, RC_CORRUPT,
                           "'%s' is missing, which " METADATA_NAME " says is there", files[i].name);
    return RC_OK;
}

/* CRIU opens images by name: one that nobody vouches for must not be there to be opened. */
static enum rc check_strangers(const struct store_entry *e, struct err *err)
{
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(e->dir, ".", &files, err);
    for (size_t i = 0; !rc && i < files.n; i++)
        if (manifest_wants(files.name[i]) && !manifest_find(&e->manifest, files.name[i]))
            rc = err_set(err, RC_CORRUPT, "'%.64s' is not in its manifest", files.name[i]);
    return rc;
}

/* ---- encrypted ones ---- */

/* What lies beside the checkpoint's directory, also where nobody knows of a store. */
static enum rc open_beside(struct store_entry *e, struct err *err)
{
    if (e->source || e->packs)
        return RC_OK;
    CLEANUP(fd_closep) int base = sys_openat(e->dir, "..", O_RDONLY | O_DIRECTORY, 0);
    if (base < 0)
        return err_sys(err, "open the directory of '%s'", e->id);
    return backend_local_open(base, &e->packs, err);
}

static struct backend *beside(const struct store_entry *e)
{
    return e->source ? e->source->packs : e->packs;
}

static enum rc get_domain(struct store_entry *e, struct domain **out, struct err *err)
{
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    char hex[2 * KEYFILE_ID + 1];
    hex_format(e->manifest.key.bytes, KEYFILE_ID, hex);
    if (!e->vault || !e->vault->keys)
        return err_set(err, RC_DENIED,
                       "no key: it is encrypted with data key %.16s...; give --key-file FILE or "
                       "--key-command COMMAND, or set CHREK_KEY_FILE or CHREK_KEY_COMMAND",
                       hex);
    enum rc rc = open_beside(e, err);
    if (!rc)
        rc = keyring_find(e->vault->keys, beside(e), &e->manifest.key, key, err);
    return rc ? rc : domain_new(&e->manifest.key, key, out, err);
}

/* The whole metadata instead of what anybody may know. */
static enum rc read_inner_metadata(struct store_entry *e, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = METADATA_MAX};
    CLEANUP(metadata_done) struct metadata m = {0};
    enum rc rc = sealed_read(e->sealed, METADATA_NAME, &text, err);
    if (!rc)
        rc = metadata_parse(buf_str(&text), text.len, &m, err);
    if (rc)
        return rc;
    m.total_bytes = e->metadata.total_bytes; /* known only when all was encrypted */
    metadata_done(&e->metadata);
    e->metadata = m;
    m = (struct metadata){0};
    return check_binding(e, err);
}

/* What is wrong with the key is for store_entry_unlocked() to say; what is wrong with the bytes is
 * said at once. */
static enum rc unlock(struct store_entry *e, struct err *err)
{
    struct domain *d = NULL;
    e->locked = get_domain(e, &d, &e->why);
    if (e->locked)
        return RC_OK;
    enum rc rc = sealed_open(e->dir, &e->manifest, d, &e->sealed, err);
    if (!rc)
        rc = read_inner_metadata(e, err);
    return rc == RC_CONFLICT ? RC_CORRUPT : rc;
}

enum rc store_entry_unlocked(const struct store_entry *e, struct err *err)
{
    if (!e->locked)
        return RC_OK;
    if (err)
        *err = e->why;
    return err_ctx(err, e->locked, "checkpoint '%s' cannot be used", e->id);
}

/* ---- finding ---- */

/* What can be told when all files are there. */
static enum rc check_files(const struct store_entry *e, struct err *err)
{
    enum rc rc = check_sizes(e, err);
    if (!rc)
        rc = check_announced(e, err);
    return !rc && e->has_manifest ? check_strangers(e, err) : rc;
}

/* The rest of the files of a remote checkpoint. */
static enum rc fetch(const struct store_entry *e, struct err *err)
{
    if (!e->source || e->source->complete)
        return RC_OK;
    enum rc rc = e->source->fetch(e->source, e->dir, err);
    e->source->complete = !rc;
    return rc ? rc : check_files(e, err);
}

enum rc store_entry_fetch(const struct store_entry *e, struct err *err)
{
    enum rc rc = fetch(e, err);
    return rc ? err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id) : RC_OK;
}

static enum rc look(struct store_entry *e, bool marked, struct err *err)
{
    if (marked && faccessat(e->dir, DONE_NAME, F_OK, AT_SYMLINK_NOFOLLOW) < 0)
        return err_set(err, RC_CORRUPT, "not finished (it has no " DONE_NAME ")");
    enum rc rc = read_manifest(e, marked, err);
    if (!rc && marked)
        rc = read_done(e, err);
    if (!rc)
        rc = read_metadata(e, err);
    if (!rc)
        rc = check_binding(e, err);
    if (!rc && (!e->source || e->source->complete))
        rc = check_files(e, err);
    if (!rc && e->manifest.sealed)
        rc = fetch(e, err); /* what it is, is told by one of its files */
    return rc || !e->manifest.sealed ? rc : unlock(e, err);
}

/* The last element of a path, also of one that ends in slashes.  Returns the caller's (free). */
static char *last_of(const char *path)
{
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    return mem_asprintf("%.*s", (int)(end - start), path + start);
}

static enum rc adopt(int dirfd, const char *path, bool marked, const struct vault *v,
                     struct store_entry **out, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = mem_zalloc(sizeof(*e));
    *e = (struct store_entry){
        .dir = dirfd, .id = last_of(path), .path = mem_strdup(path), .vault = v, .revealed = -1};
    (void)flock(dirfd, LOCK_SH | LOCK_NB); /* see store_find(); where it cannot be had, not */
    enum rc rc = look(e, marked, err);
    if (rc)
        return err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id);
    *out = STEAL(e);
    return RC_OK;
}

enum rc store_adopt_from(int dirfd, const char *id, const char *path, struct store_source *source,
                         const struct vault *v, struct store_entry **out, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = mem_zalloc(sizeof(*e));
    *e = (struct store_entry){.dir = dirfd,
                              .id = mem_strdup(id),
                              .path = mem_strdup(path),
                              .source = source,
                              .vault = v,
                              .revealed = -1};
    enum rc rc = look(e, true, err);
    if (rc)
        return err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id);
    *out = STEAL(e);
    return RC_OK;
}

enum rc store_adopt(int dirfd, const char *path, const struct vault *v, struct store_entry **out,
                    struct err *err)
{
    return adopt(dirfd, path, true, v, out, err);
}

enum rc store_adopt_unmarked(int dirfd, const char *path, const struct vault *v,
                             struct store_entry **out, struct err *err)
{
    return adopt(dirfd, path, false, v, out, err);
}

void store_entry_freep(struct store_entry **p)
{
    struct store_entry *e = STEAL(*p);
    if (!e)
        return;
    page_reader_freep(&e->pages);
    memory_done(&e->memory);
    sealed_freep(&e->sealed);
    backend_freep(&e->packs);
    fd_closep(&e->revealed);
    fd_closep(&e->dir);
    if (e->source)
        e->source->free(e->source);
    metadata_done(&e->metadata);
    manifest_done(&e->manifest);
    free(e->id);
    free(e->path);
    free(e);
}

const char *store_entry_id(const struct store_entry *e)
{
    return e->id;
}

const char *store_entry_path(const struct store_entry *e)
{
    return e->path;
}

int store_entry_fd(const struct store_entry *e)
{
    return e->dir;
}

const struct domain *store_entry_domain(const struct store_entry *e)
{
    return e->sealed ? sealed_domain(e->sealed) : NULL;
}

const struct metadata *store_entry_metadata(const struct store_entry *e)
{
    return &e->metadata;
}

bool store_entry_must_be_signed(const struct store_entry *e)
{
    return e->vault && e->vault->trust.n > 0;
}

const struct manifest *store_entry_manifest(const struct store_entry *e)
{
    if (e->sealed)
        return sealed_manifest(e->sealed);
    return e->has_manifest ? &e->manifest : NULL;
}

/* ---- packed memory ---- */

static enum rc read_memory(const struct store_entry *e, const struct manifest_file *f,
                           struct buf *text, struct err *err)
{
    struct digest d;
    if (e->sealed)
        return sealed_read(e->sealed, MEMORY_NAME, text, err);
    enum rc rc = read_document(e, MEMORY_NAME, MEMORY_MAX, text, err);
    if (rc)
        return rc;
    digest_file_bytes(text->data, text->len, &d);
    return digest_equal(&d, &f->digest)
               ? RC_OK
               : err_set(err, RC_CORRUPT,
                         "'" MEMORY_NAME "' is damaged: its bytes do not match the manifest");
}

static enum rc load_memory(struct store_entry *e, const struct manifest_file *f, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    enum rc rc = read_memory(e, f, &text, err);
    if (!rc)
        rc = memory_parse(text.data, text.len, &e->memory, err);
    if (!rc && e->memory.sealed != (e->sealed != NULL))
        rc = err_set(err, RC_CORRUPT, "'" MEMORY_NAME "' is not of this checkpoint");
    return rc;
}

enum rc store_entry_pages(struct store_entry *e, const struct page_reader **out, struct err *err)
{
    enum rc rc = store_entry_unlocked(e, err);
    if (rc)
        return rc;
    const struct manifest *m = store_entry_manifest(e);
    const struct manifest_file *f = m ? manifest_find(m, MEMORY_NAME) : NULL;
    if (f && !e->pages) {
        const struct domain *d = store_entry_domain(e);
        memory_done(&e->memory);
        rc = fetch(e, err);
        if (!rc)
            rc = load_memory(e, f, err);
        if (!rc)
            rc = open_beside(e, err);
        if (!rc)
            rc = page_reader_open(beside(e), d, &e->memory, &e->pages, err);
    }
    if (rc)
        return err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id);
    *out = e->pages;
    return RC_OK;
}

enum rc store_entry_record(const struct store_entry *e, struct workingset_place *out,
                           struct err *err)
{
    const struct manifest *m = store_entry_manifest(e);
    if (!m || !manifest_find(m, MEMORY_NAME))
        return err_set(err, RC_NOT_FOUND, "its memory is not packed");
    if (e->sealed)
        return err_set(err, RC_NOT_FOUND, "of encrypted memory there is no record");
    if (store_entry_must_be_signed(e))
        return err_set(err, RC_DENIED, "a record is signed by nobody");
    CLEANUP(fd_closep) int base = sys_openat(e->dir, "..", O_RDONLY | O_DIRECTORY, 0);
    if (base < 0)
        return err_sys(err, "open the directory of '%s'", e->id);
    const char *key = e->source ? e->source->record : NULL;
    *out = (struct workingset_place){.base = fd_steal(&base),
                                     .name = mem_strdup(key ? key : e->id),
                                     .backend = key ? e->source->packs : NULL};
    return RC_OK;
}

enum rc store_entry_workingset(const struct store_entry *e, struct workingset *out, struct err *err)
{
    CLEANUP(workingset_place_done) struct workingset_place at = WORKINGSET_NOWHERE;
    enum rc rc = store_entry_record(e, &at, err);
    if (rc)
        return rc;
    const struct manifest_file *f = manifest_find(store_entry_manifest(e), MEMORY_NAME);
    return workingset_open(&at, &f->digest, out, err);
}

static enum rc copy_bytes(int from, int to, const char *name, struct err *err)
{
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(MEMORY_CHUNK);
    size_t n = MEMORY_CHUNK;
    while (n == MEMORY_CHUNK) {
        enum rc rc = sys_read_full(from, data, MEMORY_CHUNK, &n, err);
        if (!rc)
            rc = sys_write_all(to, data, n, err);
        if (rc)
            return err_ctx(err, rc, "copy '%s'", name);
    }
    return RC_OK;
}

enum rc store_entry_copy(const struct store_entry *e, const char *name, int dirfd, struct err *err)
{
    enum rc rc = store_entry_unlocked(e, err);
    if (!rc)
        rc = store_entry_fetch(e, err);
    if (rc)
        return rc;
    if (e->sealed) {
        enum rc bad = sealed_copy(e->sealed, name, dirfd, err);
        return bad ? err_ctx(err, bad, "checkpoint '%s' cannot be used", e->id) : RC_OK;
    }
    const struct manifest_file *f = manifest_find(&e->manifest, name);
    if (!f)
        return err_set(err, RC_NOT_FOUND, "checkpoint '%s' has no '%s'", e->id, name);
    CLEANUP(fd_closep) int from = sys_openat(e->dir, name, O_RDONLY | O_NOFOLLOW, 0);
    if (from < 0)
        return err_sys(err, "open '%s'", name);
    CLEANUP(fd_closep)
    int to = sys_openat(dirfd, name, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
    if (to < 0)
        return err_sys(err, "make a copy of '%s'", name);
    struct digest d;
    uint64_t len = 0;
    rc = copy_bytes(from, to, name, err);
    if (!rc)
        rc = digest_file(to, 1, NULL, &len, &d, err);
    if (rc)
        return rc;
    if (len != f->size || !digest_equal(&d, &f->digest))
        return err_set(err, RC_CORRUPT,
                       "checkpoint '%s' cannot be used: '%s' is damaged: its bytes do not match "
                       "the manifest",
                       e->id, name);
    return RC_OK;
}

/* ---- verifying ---- */

void store_entry_cancel(struct store_entry *e, const struct cancel *c)
{
    e->cancel = c;
}

enum rc store_entry_recheck(const struct store_entry *e, struct err *err)
{
    enum rc rc = check_sizes(e, err);
    return rc ? err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id) : RC_OK;
}

static enum rc verify_file(const struct store_entry *e, const struct manifest_file *f,
                           unsigned threads, uint64_t *done, struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(e->dir, f->name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", f->name);
    struct digest d;
    uint64_t len = 0;
    enum rc rc = digest_file_until(fd, threads, done, e->cancel, &len, &d, err);
    if (rc)
        return err_ctx(err, rc, "'%s'", f->name);
    if (len != f->size || !digest_equal(&d, &f->digest))
        return err_set(err, RC_CORRUPT, "'%s' is damaged: its bytes do not match the manifest",
                       f->name);
    return RC_OK;
}

static bool is_page_image(const char *name)
{
    return strncmp(name, "pages-", 6) == 0;
}

/* Bring a copy of each file that matches into memory. */
static enum rc reveal_copies(struct store_entry *e, const char *pattern, struct err *err)
{
    const struct manifest *m = store_entry_manifest(e);
    enum rc rc = e->revealed < 0 ? fs_private_dir(&e->revealed, err) : RC_OK;
    for (size_t i = 0; !rc && i < m->n; i++)
        if (fnmatch(pattern, m->files[i].name, FNM_NOESCAPE) == 0)
            rc = store_entry_copy(e, m->files[i].name, e->revealed, err);
    return rc;
}

enum rc store_entry_reveal(struct store_entry *e, const char *pattern, int *out_dirfd,
                           struct err *err)
{
    enum rc rc = store_entry_unlocked(e, err);
    bool trusts = store_entry_must_be_signed(e);
    if (!rc)
        rc = store_entry_fetch(e, err);
    if (rc)
        return rc;
    if (e->sealed || trusts) {
        rc = reveal_copies(e, pattern, err);
        if (!rc)
            *out_dirfd = e->revealed;
        return rc;
    }
    for (size_t i = 0; i < e->manifest.n; i++) {
        const struct manifest_file *f = &e->manifest.files[i];
        if (fnmatch(pattern, f->name, FNM_NOESCAPE) != 0 || is_page_image(f->name))
            continue;
        rc = verify_file(e, f, 1, NULL, err);
        if (rc)
            return err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id);
    }
    *out_dirfd = e->dir;
    return RC_OK;
}

/* What only the key can tell: that every file decrypts. */
static enum rc verify_content(struct store_entry *e, uint64_t *done, struct err *err)
{
    const struct page_reader *pages = NULL;
    int dir = -1;
    enum rc rc = e->sealed ? store_entry_reveal(e, "*", &dir, err) : RC_OK;
    if (!rc)
        rc = store_entry_pages(e, &pages, err);
    if (!rc && pages)
        rc = page_scan_verify(pages, done, err);
    return rc;
}

enum rc store_verify(const struct store_entry *e, enum store_which which, unsigned threads,
                     uint64_t *done, struct err *err)
{
    if (!e->has_manifest)
        return err_set(err, RC_UNSUPPORTED, "checkpoint '%s' has no digests to verify", e->id);
    enum rc rc = store_entry_fetch(e, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < e->manifest.n; i++) {
        const struct manifest_file *f = &e->manifest.files[i];
        bool late = is_page_image(f->name);
        if ((which == STORE_SMALL && late) || (which == STORE_BIG && !late))
            continue;
        rc = verify_file(e, f, threads, done, err);
        if (rc)
            return err_ctx(err, rc, "checkpoint '%s' cannot be used", e->id);
    }
    return which == STORE_ALL ? verify_content((struct store_entry *)(uintptr_t)e, done, err)
                              : RC_OK;
}
