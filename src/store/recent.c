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

static bool is_of(const struct store *s, const char *id, const char *name)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(metadata_done) struct metadata m = {0};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" METADATA_NAME, id);
    return name && fs_read_file(s->dir, path, METADATA_MAX, &text, NULL) == RC_OK &&
           metadata_parse(buf_str(&text), text.len, &m, NULL) == RC_OK && m.name &&
           strcmp(m.name, name) == 0;
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
    CLEANUP(mem_freep) struct candidate *list = mem_zalloc((n + 1) * sizeof(*list));
    for (size_t i = 0; i < n; i++) {
        struct stat st = {.st_mode = 0};
        if (fstatat(s->dir, ids[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
            list[i] = (struct candidate){ids[i], st.st_mtim};
        else
            list[i].id = ids[i]; /* just deleted: the oldest */
    }
    if (n)
        qsort(list, n, sizeof(*list), newest_first);
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
