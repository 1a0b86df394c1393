#include "store/retention.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

static bool same_group(const struct retention *r, const struct retention_item *a,
                       const struct retention_item *b)
{
    return !r->per_name || strcmp(a->name ? a->name : "", b->name ? b->name : "") == 0;
}

/* Times of one form are ordered as texts; of equal ones the id decides, so that it is always the
 * same one that stays. */
static bool is_newer(const struct retention_item *a, const struct retention_item *b)
{
    int order = strcmp(a->created_at, b->created_at);
    return order > 0 || (order == 0 && strcmp(a->id, b->id) > 0);
}

void retention_choose(const struct retention *r, const struct retention_item *items, size_t n,
                      bool *out_retire)
{
    char cutoff[CLOCK_RFC3339_LEN];
    clock_rfc3339_ago(r->keep_within_ns, cutoff);
    for (size_t i = 0; i < n; i++) {
        const struct retention_item *x = &items[i];
        uint64_t newer = 0;
        for (size_t k = 0; k < n && x->created_at; k++)
            newer += k != i && items[k].created_at && same_group(r, x, &items[k]) &&
                     is_newer(&items[k], x);
        bool last = r->keep_last && newer < r->keep_last;
        bool young = r->keep_within_ns && x->created_at && strcmp(x->created_at, cutoff) >= 0;
        bool ruled = r->keep_last || r->keep_within_ns;
        out_retire[i] = ruled && x->created_at && !last && !young;
    }
}

enum rc store_retire(struct store *s, const struct retention *r, bool dry, char ***out,
                     struct err *err)
{
    char **ids = NULL;
    size_t n = 0, used = 0, gone = 0;
    enum rc rc = store_list(s, &ids, err);
    if (rc)
        return rc;
    while (ids[n])
        n++;
    CLEANUP(mem_freep) struct store_entry **entries = mem_zalloc((n + 1) * sizeof(void *));
    CLEANUP(mem_freep) struct retention_item *items = mem_zalloc((n + 1) * sizeof(*items));
    CLEANUP(mem_freep) bool *retire = mem_zalloc(n + 1);
    char **list = mem_zalloc((n + 1) * sizeof(char *));
    for (size_t i = 0; i < n; i++) {
        if (store_find(s, ids[i], &entries[used], NULL) != RC_OK)
            continue;
        const struct metadata *m = store_entry_metadata(entries[used]);
        /* Of an encrypted one that is not open nobody can say whose it is. */
        bool known = store_entry_unlocked(entries[used], NULL) == RC_OK || !r->per_name;
        const char *at = known && m->created_at && *m->created_at ? m->created_at : NULL;
        items[used++] = (struct retention_item){ids[i], m->name, at};
    }
    retention_choose(r, items, used, retire);
    for (size_t i = 0; i < used; i++) {
        store_entry_freep(&entries[i]); /* not held by us when it is deleted */
        if (!rc && retire[i] && !dry)
            rc = store_delete(s, items[i].id, err);
        if (!rc && retire[i])
            list[gone++] = mem_strdup(items[i].id);
    }
    store_free_ids(ids);
    if (rc) {
        store_free_ids(list);
        return rc;
    }
    *out = list;
    return RC_OK;
}
