#include "store/recent.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "store/manifest.h"
#include "store/memory.h"
#include "store/metadata.h"
#include "store/store_priv.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define OWN_MAX 3U    /* checkpoints of the box that are looked into */
#define OTHERS_MAX 2U /* and of anybody */
#define READ_MAX 200U /* checkpoints whose metadata is read to find them */
#define OPEN_MAX 8U   /* that are opened, since what tells is encrypted or far away */

struct candidate {
    char *id;
    struct timespec made;
};

static int newest_first(const void *a, const void *b)
{
    const struct timespec *x = &((const struct candidate *)a)->made;
    const struct timespec *y = &((const struct candidate *)b)->made;
    if (x->tv_sec != y->tv_sec)
        return (x->tv_sec < y->tv_sec) - (x->tv_sec > y->tv_sec);
    return (x->tv_nsec < y->tv_nsec) - (x->tv_nsec > y->tv_nsec);
}

static bool read_metadata(const struct store *s, const char *id, struct metadata *out)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" METADATA_NAME, id);
    return fs_read_file(s->dir, path, METADATA_MAX, &text, NULL) == RC_OK &&
           metadata_parse(buf_str(&text), text.len, out, NULL) == RC_OK;
}

static bool is_of(const struct store *s, const char *id, const char *name)
{
    CLEANUP(metadata_done) struct metadata m = {0};
    return name && read_metadata(s, id, &m) && m.name && strcmp(m.name, name) == 0;
}

/* Checkpoints of a directory, the newest first; out: free(), the ids stay the list's */
static struct candidate *sort_by_age(const struct store *s, char **ids, size_t n)
{
    struct candidate *list = mem_zalloc((n + 1) * sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        struct stat st = {.st_mode = 0};
        list[i].id = ids[i];
        if (fstatat(s->dir, ids[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
            list[i].made = st.st_mtim; /* else just deleted: the oldest */
    }
    if (n)
        qsort(list, n, sizeof(*list), newest_first);
    return list;
}

struct share {
    const char *pack;
    uint64_t pages;
};

static int most_first(const void *a, const void *b)
{
    uint64_t x = ((const struct share *)a)->pages, y = ((const struct share *)b)->pages;
    return (x < y) - (x > y);
}

struct names {
    char **list;
    size_t n;
};

static void add_name(struct names *names, const char *name)
{
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(names->list[i], name) == 0)
            return;
    names->list = mem_realloc(names->list, (names->n + 2) * sizeof(char *));
    names->list[names->n++] = mem_strdup(name);
    names->list[names->n] = NULL;
}

/* An encrypted checkpoint's manifest names its packs. */
static void add_named_packs(const struct store *s, const char *id, struct names *names)
{
    CLEANUP(buf_done) struct buf text = {.max = MANIFEST_MAX};
    CLEANUP(manifest_done) struct manifest m = {0};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" MANIFEST_NAME, id);
    if (fs_read_file(s->dir, path, MANIFEST_MAX, &text, NULL) != RC_OK ||
        manifest_parse(buf_str(&text), text.len, &m, NULL) != RC_OK)
        return;
    for (size_t i = 0; i < m.n_packs; i++)
        add_name(names, m.packs[i]);
}

static void add_packs(const struct store *s, const char *id, struct names *names)
{
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" MEMORY_NAME, id);
    if (fs_read_file(s->dir, path, MEMORY_MAX, &text, NULL) != RC_OK ||
        memory_parse(text.data, text.len, &m, NULL) != RC_OK) {
        add_named_packs(s, id, names);
        return;
    }
    CLEANUP(mem_freep) struct share *shares = mem_zalloc((m.n_packs + 1) * sizeof(*shares));
    for (size_t i = 0; i < m.n_packs; i++)
        shares[i].pack = m.packs[i].name;
    for (size_t i = 0; i < m.n_extents; i++)
        if (m.extents[i].chunk != MEMORY_ZERO)
            shares[m.chunks[m.extents[i].chunk].pack].pages += m.extents[i].pages;
    if (m.n_packs)
        qsort(shares, m.n_packs, sizeof(*shares), most_first);
    for (size_t i = 0; i < m.n_packs; i++)
        add_name(names, shares[i].pack);
}

enum rc store_recent_packs(struct store *s, const char *name, char ***out, size_t *out_n,
                           struct err *err)
{
    char **ids = NULL;
    size_t n = 0, own = 0, others = 0;
    enum rc rc = store_list(s, &ids, err);
    if (rc)
        return rc;
    while (ids[n])
        n++;
    CLEANUP(mem_freep) struct candidate *list = sort_by_age(s, ids, n);
    struct names names = {.list = mem_zalloc(sizeof(char *))};
    for (size_t i = 0; i < n && i < READ_MAX && own < OWN_MAX; i++)
        if (is_of(s, list[i].id, name)) {
            add_packs(s, list[i].id, &names);
            own++;
        }
    for (; others < n && others < OTHERS_MAX; others++)
        add_packs(s, list[others].id, &names);
    store_free_ids(ids);
    *out = names.list;
    *out_n = names.n;
    return RC_OK;
}

/* ---- the newest of a box ---- */

/* The checkpoint, if it can be used and is of this box. */
static struct store_entry *open_own(struct store *s, const char *id, const char *name)
{
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    if (store_find(s, id, &e, NULL) != RC_OK || store_entry_unlocked(e, NULL) != RC_OK)
        return NULL;
    const char *own = store_entry_metadata(e)->name;
    return own && strcmp(own, name) == 0 ? STEAL(e) : NULL;
}

static struct store_entry *newest_by_age(struct store *s, char **ids, size_t n, const char *name)
{
    CLEANUP(mem_freep) struct candidate *list = sort_by_age(s, ids, n);
    struct store_entry *found = NULL;
    unsigned opened = 0;
    for (size_t i = 0; i < n && i < READ_MAX && opened < OPEN_MAX && !found; i++) {
        CLEANUP(metadata_done) struct metadata m = {0};
        if (!read_metadata(s, list[i].id, &m) || (!m.key && (!m.name || strcmp(m.name, name) != 0)))
            continue;
        opened++;
        found = open_own(s, list[i].id, name);
    }
    return found;
}

static int last_first(const void *a, const void *b)
{
    return strverscmp(*(char *const *)b, *(char *const *)a);
}

static struct store_entry *newest_by_id(struct store *s, char **ids, size_t n, const char *name)
{
    struct store_entry *found = NULL;
    unsigned opened = 0;
    if (n)
        qsort(ids, n, sizeof(*ids), last_first);
    for (size_t i = 0; i < n && opened < OPEN_MAX && !found; i++)
        if (strncmp(ids[i], name, strlen(name)) == 0) {
            opened++;
            found = open_own(s, ids[i], name);
        }
    return found;
}

struct store_entry *store_recent_entry(struct store *s, const char *name)
{
    char **ids = NULL;
    size_t n = 0;
    if (!name || store_list(s, &ids, NULL) != RC_OK)
        return NULL;
    while (ids[n])
        n++;
    struct store_entry *e =
        s->remote ? newest_by_id(s, ids, n, name) : newest_by_age(s, ids, n, name);
    store_free_ids(ids);
    return e;
}
