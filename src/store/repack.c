#include "store/repack.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/secret.h"
#include "store/done.h"
#include "store/page_mover.h"
#include "store/repack_plan.h"
#include "store/store_priv.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A checkpoint whose map can be rewritten. */
struct item {
    struct store_entry *entry;
    const struct page_reader *pages;
    bool is_signed, taken;
};

struct work {
    struct store *store;
    const struct repack_options *options;
    struct vault signing, bare; /* for signed ones: whoever may be trusted; and others: no signer */
    struct item *items;
    size_t n_items;
    const struct memory **maps; /* of the items */
    repack_name *pinned;
    size_t n_pinned;
    struct repacked result;
};

static void leave(struct work *w, const char *id, const char *why)
{
    struct repacked *r = &w->result;
    r->left = mem_realloc(r->left, (r->n_left + 1) * sizeof(*r->left));
    r->left[r->n_left++] = (struct repack_left){mem_strdup(id), mem_strdup(why)};
}

void repacked_done(struct repacked *r)
{
    for (size_t i = 0; i < r->n_left; i++) {
        free(r->left[i].id);
        free(r->left[i].why);
    }
    free(r->left);
    *r = (struct repacked){0};
}

/* ---- which checkpoints there are ---- */

static void pin(struct work *w, const char *pack)
{
    if ((w->n_pinned & (w->n_pinned - 1)) == 0)
        w->pinned =
            mem_realloc(w->pinned, (w->n_pinned ? w->n_pinned * 2 : 1) * sizeof(*w->pinned));
    memcpy(w->pinned[w->n_pinned++], pack, sizeof(*w->pinned));
}

/* What is left as it is keeps its packs.  They are told by its map, or its manifest. */
static void pin_all(struct work *w, const char *id)
{
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    CLEANUP(memory_done) struct memory map = {0};
    CLEANUP(buf_done) struct buf manifest = {.max = MANIFEST_MAX};
    CLEANUP(manifest_done) struct manifest m = {0};
    if (store_read_file(w->store, id, MEMORY_NAME, MEMORY_MAX, &text, NULL) == RC_OK &&
        memory_parse(text.data, text.len, &map, NULL) == RC_OK)
        for (size_t i = 0; i < map.n_packs; i++)
            pin(w, map.packs[i].name);
    if (store_read_file(w->store, id, MANIFEST_NAME, MANIFEST_MAX, &manifest, NULL) == RC_OK &&
        manifest_parse(buf_str(&manifest), manifest.len, &m, NULL) == RC_OK)
        for (size_t i = 0; i < m.n_packs; i++)
            pin(w, m.packs[i]);
}

static bool has_file(const struct store *s, const char *id, const char *name)
{
    struct stat st;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", id, name);
    return fstatat(s->dir, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Whether new files would be encrypted with the key of these. */
static enum rc check_key(struct work *w, const struct store_entry *e, struct err *err)
{
    CLEANUP(secret_freep) uint8_t *key = secret_alloc(CIPHER_KEY);
    CLEANUP(buf_done) struct buf text = {.max = MANIFEST_MAX};
    CLEANUP(manifest_done) struct manifest m = {0};
    struct key_id now;
    enum rc rc =
        store_read_file(w->store, store_entry_id(e), MANIFEST_NAME, MANIFEST_MAX, &text, err);
    if (!rc)
        rc = manifest_parse(buf_str(&text), text.len, &m, err);
    if (!rc)
        rc = keyring_current(w->store->vault->keys, w->store->backend, &now, key, err);
    if (!rc && memcmp(&now, &m.key, sizeof(now)) != 0)
        rc = err_set(err, RC_DENIED,
                     "it is encrypted with another data key than new checkpoints are");
    return rc;
}

/* RC_NOT_FOUND: it has no packed memory. */
static enum rc open_item(struct work *w, const char *id, struct item *out, struct err *err)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    struct store view = *w->store;
    bool is_signed = has_file(w->store, id, MANIFEST_SIGNATURE);
    if (is_signed && !w->signing.signer)
        return err_set(err, RC_DENIED, "it is signed; give --sign-key to have it signed anew");
    view.vault = is_signed ? &w->signing : &w->bare;
    enum rc rc = store_find(&view, id, &e, err);
    if (!rc)
        rc = store_entry_unlocked(e, err);
    if (!rc)
        rc = store_entry_pages(e, &out->pages, err);
    if (!rc && !out->pages)
        return RC_NOT_FOUND;
    if (!rc)
        rc = store_entry_recheck(e, err);
    if (!rc && store_entry_metadata(e)->key)
        rc = check_key(w, e, err);
    if (rc)
        return rc;
    out->is_signed = is_signed;
    out->entry = STEAL(e);
    return RC_OK;
}

static bool is_without(const struct work *w, const char *id)
{
    char *const *p = w->options->without;
    while (p && *p && strcmp(*p, id) != 0)
        p++;
    return p && *p;
}

static int newest_first(const void *a, const void *b)
{
    const struct store_entry *x = ((const struct item *)a)->entry,
                             *y = ((const struct item *)b)->entry;
    const char *s = store_entry_metadata(x)->created_at, *t = store_entry_metadata(y)->created_at;
    int order = strcmp(t ? t : "", s ? s : "");
    return order ? order : strcmp(store_entry_id(y), store_entry_id(x));
}

static enum rc open_items(struct work *w, struct err *err)
{
    char **ids = NULL;
    size_t n = 0;
    enum rc rc = store_list(w->store, &ids, err);
    if (rc)
        return rc;
    while (ids[n])
        n++;
    w->items = mem_zalloc((n + 1) * sizeof(*w->items));
    w->maps = mem_zalloc((n + 1) * sizeof(void *));
    for (size_t i = 0; i < n; i++) {
        struct err why = ERR_INIT;
        if (is_without(w, ids[i]))
            continue;
        enum rc bad = open_item(w, ids[i], &w->items[w->n_items], &why);
        w->n_items += bad == RC_OK;
        if (bad && bad != RC_NOT_FOUND) {
            leave(w, ids[i], why.msg);
            pin_all(w, ids[i]);
        }
    }
    store_free_ids(ids);
    if (w->n_items)
        qsort(w->items, w->n_items, sizeof(*w->items), newest_first);
    for (size_t i = 0; i < w->n_items; i++)
        w->maps[i] = page_reader_memory(w->items[i].pages);
    return RC_OK;
}

/* ---- exchanging one ---- */

static bool is_made_anew(const char *name)
{
    static const char *const names[] = {MEMORY_NAME, METADATA_NAME, MANIFEST_NAME,
                                        MANIFEST_SIGNATURE, DONE_NAME};
    for (size_t i = 0; i < ARRAY_LEN(names); i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* A file that never changes may be in two directories; where it cannot, it is copied. */
static enum rc pass_file(const struct store_entry *e, const char *name, int to, struct err *err)
{
    CLEANUP(fd_closep)
    int fd = sys_openat(store_entry_fd(e), name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    if (sys_link_fd(fd, to, name) == 0)
        return RC_OK;
    return manifest_find(store_entry_manifest(e), name) ? store_entry_copy(e, name, to, err)
                                                        : RC_OK; /* a log */
}

/* What the manifest vouches for is not read again: what was damaged stays damaged. */
static enum rc pass_readable(const struct store_entry *e, struct store_staging *g, struct err *err)
{
    const struct manifest *m = store_entry_manifest(e);
    int fd = sys_openat(store_entry_fd(e), ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    enum rc rc = RC_OK;
    if (!dir) {
        rc = err_sys(err, "read the checkpoint's directory");
        fd_closep(&fd);
        return rc;
    }
    for (const struct dirent *d; !rc && (d = readdir(dir));) {
        struct stat st;
        if (is_made_anew(d->d_name) ||
            fstatat(store_entry_fd(e), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
            !S_ISREG(st.st_mode))
            continue;
        rc = pass_file(e, d->d_name, store_staging_fd(g), err);
        const struct manifest_file *f = manifest_find(m, d->d_name);
        if (!rc && f)
            store_staging_digest(g, f->name, f->size, &f->digest);
    }
    (void)closedir(dir);
    return rc;
}

static enum rc pass_sealed(const struct store_entry *e, struct store_staging *g, struct err *err)
{
    const struct manifest *m = store_entry_manifest(e);
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < m->n; i++)
        if (!is_made_anew(m->files[i].name))
            rc = store_entry_copy(e, m->files[i].name, store_staging_fd(g), err);
    return rc;
}

static enum rc copy_metadata(const struct store_entry *e, struct metadata *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    metadata_format(store_entry_metadata(e), &text);
    return metadata_parse(buf_str(&text), text.len, out, err);
}

/* What was recorded of its restores goes by pages, not by packs: it is as true as before. */
static void keep_workingset(const struct work *w, const struct item *old)
{
    CLEANUP(workingset_done) struct workingset record = WORKINGSET_INIT;
    CLEANUP(workingset_place_done) struct workingset_place place = WORKINGSET_NOWHERE;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    const struct page_reader *pages = NULL;
    const struct manifest_file *f = NULL;
    if (store_entry_workingset(old->entry, &record, NULL) == RC_OK &&
        store_find(w->store, store_entry_id(old->entry), &e, NULL) == RC_OK &&
        store_entry_pages(e, &pages, NULL) == RC_OK &&
        store_entry_record(e, &place, NULL) == RC_OK &&
        (f = manifest_find(store_entry_manifest(e), MEMORY_NAME)))
        (void)!workingset_write(&place, &f->digest, record.extents, record.n_extents, pages, NULL);
}

static enum rc exchange(struct work *w, const struct item *i, const struct memory *m,
                        struct err *err)
{
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata meta = {0};
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    bool sealed = store_entry_metadata(i->entry)->key != NULL;
    struct vault v = i->is_signed ? w->signing : w->bare;
    v.keys = sealed ? v.keys : NULL;
    struct store view = *w->store;
    view.vault = &v;
    view.clear_allowed = true;
    enum rc rc = copy_metadata(i->entry, &meta, err);
    if (!rc)
        rc = store_begin(&view, store_entry_id(i->entry), false, &g, err);
    if (rc)
        return rc;
    store_staging_instead(g, i->entry);
    memory_format(m, &text);
    if (text.overflowed)
        return err_set(err, RC_TOO_BIG, "its memory map has more than %zu bytes", MEMORY_MAX);
    rc = sealed ? pass_sealed(i->entry, g, err) : pass_readable(i->entry, g, err);
    if (!rc)
        rc = fs_write_atomic(store_staging_fd(g), MEMORY_NAME, text.data, text.len, 0600, err);
    return rc ? rc : store_commit(g, &meta, true, err);
}

/* ---- all of them ---- */

static enum rc exchange_group(struct work *w, const struct repack_plan *plan, struct page_mover *m,
                              const bool *group, const struct store_hold *hold, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < w->n_items; i++) {
        CLEANUP(memory_done) struct memory map = {0};
        if (!group[i] || !repack_plan_touches(plan, i))
            continue;
        rc = page_mover_map(m, i, &map, err);
        if (!rc)
            rc = store_hold_check(hold, err);
        if (!rc)
            rc = exchange(w, &w->items[i], &map, err);
        if (rc == RC_CONFLICT) { /* somebody else's is there now, or none */
            leave(w, store_entry_id(w->items[i].entry), "it was replaced or deleted meanwhile");
            rc = RC_OK;
        } else if (!rc) {
            w->result.checkpoints++;
            keep_workingset(w, &w->items[i]);
        }
    }
    return rc;
}

static bool same_domain(const struct store_entry *a, const struct store_entry *b)
{
    const char *x = store_entry_metadata(a)->key, *y = store_entry_metadata(b)->key;
    return x && y ? strcmp(x, y) == 0 : x == y;
}

/* Those whose packs are encrypted with one key, or all that are not. */
static enum rc repack_group(struct work *w, const struct repack_plan *plan, size_t first,
                            const struct store_hold *hold, struct err *err)
{
    CLEANUP(mem_freep) bool *group = mem_zalloc(w->n_items + 1);
    CLEANUP(page_mover_freep)
    struct page_mover *m =
        page_mover_new(w->store->backend, plan, store_entry_domain(w->items[first].entry));
    enum rc rc = RC_OK;
    uint64_t written = 0;
    for (size_t i = first; !rc && i < w->n_items; i++) {
        if (!same_domain(w->items[first].entry, w->items[i].entry))
            continue;
        group[i] = w->items[i].taken = true;
        rc = page_mover_take(m, i, w->items[i].pages, w->options->done, err);
        if (rc)
            rc = err_ctx(err, rc, "checkpoint '%s'", store_entry_id(w->items[i].entry));
    }
    if (!rc)
        rc = page_mover_finish(m, &written, err);
    w->result.moved += written;
    return rc ? rc : exchange_group(w, plan, m, group, hold, err);
}

static enum rc run(struct work *w, struct err *err)
{
    CLEANUP(repack_plan_done) struct repack_plan plan = {0};
    CLEANUP(store_hold_freep) struct store_hold *hold = NULL;
    enum rc rc = store_hold_packs(w->store, false, &hold, err); /* as one who makes checkpoints */
    if (!rc)
        rc = open_items(w, err);
    if (rc)
        return rc;
    repack_plan_make(w->maps, w->n_items, (const repack_name *)w->pinned, w->n_pinned, &plan);
    w->result.freed = repack_plan_freed(&plan);
    if (w->options->dry) {
        w->result.moved = repack_plan_moved(&plan);
        for (size_t i = 0; i < w->n_items; i++)
            w->result.checkpoints += repack_plan_touches(&plan, i);
        return RC_OK;
    }
    for (size_t i = 0; !rc && i < w->n_items; i++)
        if (!w->items[i].taken && repack_plan_touches(&plan, i))
            rc = repack_group(w, &plan, i, hold, err);
    return rc;
}

/* Who signs anew what he signed himself trusts himself. */
static enum rc trust_signer(struct vault *v, struct err *err)
{
    struct signature s;
    if (!v->signer || v->trust.n)
        return RC_OK;
    enum rc rc = signature_make(v->signer, "", 0, &s, err);
    if (rc)
        return rc;
    v->trust.keys = mem_alloc(sizeof(*v->trust.keys));
    memcpy(v->trust.keys[0], s.signer, SIGNATURE_KEY);
    v->trust.n = 1;
    return RC_OK;
}

enum rc store_repack(struct store *s, const struct repack_options *o, struct repacked *out,
                     struct err *err)
{
    struct work w = {.store = s, .options = o};
    if (s->remote)
        return err_set(err, RC_UNSUPPORTED,
                       "repack %s: object storage cannot exchange a checkpoint only if it is still "
                       "the one that was read; repack a directory, and `chrek copy` from there",
                       s->path);
    w.signing = w.bare = s->vault ? *s->vault : (struct vault){.keys = NULL};
    w.bare.signer = NULL;
    enum rc rc = trust_signer(&w.signing, err);
    bool own = w.signing.trust.keys != w.bare.trust.keys;
    if (!rc)
        rc = run(&w, err);
    for (size_t i = 0; i < w.n_items; i++)
        store_entry_freep(&w.items[i].entry);
    if (own)
        free(w.signing.trust.keys);
    free(w.items);
    free(w.maps);
    free(w.pinned);
    if (rc) {
        repacked_done(&w.result);
        return err_ctx(err, rc, "repack in %s", s->path);
    }
    *out = w.result;
    return RC_OK;
}
