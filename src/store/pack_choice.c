#include "store/pack_choice.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "store/pack.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct candidates {
    struct pack_choice *choice;
    size_t preferred; /* in the list already */
};

static void add_name(struct pack_choice *c, const char *name)
{
    if ((c->n & (c->n - 1)) == 0)
        c->names = mem_realloc(c->names, (c->n ? c->n * 2 : 1) * sizeof(*c->names));
    memcpy(c->names[c->n++], name, sizeof(*c->names));
}

static bool is_listed(const struct pack_choice *c, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(c->names[i], name) == 0)
            return true;
    return false;
}

static enum rc consider(void *arg, const char *key, uint64_t size, struct err *err)
{
    const struct candidates *c = arg;
    const char *name = strrchr(key, '/') + 1;
    (void)size;
    (void)err;
    if (strlen(name) == MEMORY_PACK_NAME_LEN && !is_listed(c->choice, c->preferred, name))
        add_name(c->choice, name);
    return RC_OK;
}

static int newest_first(const void *a, const void *b)
{
    return pack_newer(b, a);
}

enum rc pack_choice_make(struct backend *b, char *const *prefer, size_t n_prefer, size_t max,
                         struct pack_choice *out, struct err *err)
{
    CLEANUP(pack_choice_done) struct pack_choice choice = {.n = 0};
    for (size_t i = 0; i < n_prefer && choice.n < max; i++)
        if (!is_listed(&choice, choice.n, prefer[i]))
            add_name(&choice, prefer[i]);
    struct candidates c = {&choice, choice.n};
    enum rc rc = choice.n < max ? backend_list(b, PACK_PREFIX, consider, &c, err) : RC_OK;
    if (rc)
        return rc;
    if (choice.n > c.preferred)
        qsort(choice.names + c.preferred, choice.n - c.preferred, sizeof(*choice.names),
              newest_first);
    choice.n = choice.n < max ? choice.n : max;
    *out = choice;
    choice = (struct pack_choice){.n = 0};
    return RC_OK;
}

void pack_choice_done(struct pack_choice *c)
{
    free(c->names);
    *c = (struct pack_choice){.n = 0};
}
