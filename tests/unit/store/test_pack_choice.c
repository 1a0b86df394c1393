#include "backend/drivers.h"
#include "base/compiler.h"
#include "harness/test.h"
#include "store/pack.h"
#include "store/pack_choice.h"

#include <stdio.h>
#include <string.h>

/* The name of a pack that was made at a time. */
static void name_of(unsigned random, unsigned ms, char out[MEMORY_PACK_NAME_LEN + 1])
{
    (void)snprintf(out, MEMORY_PACK_NAME_LEN + 1, "%020u%012x", random, ms);
}

/* Of eight packs the first is the youngest. */
static struct backend *storage(void)
{
    struct backend *b = NULL;
    struct err err = ERR_INIT;
    CHECK_OK(backend_mem_open(&b, &err));
    for (unsigned i = 0; i < 8; i++) {
        char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
        name_of(i, 1000 - i, name);
        pack_key(name, key);
        CHECK_OK(backend_put(b, key, "x", 1, &err));
    }
    return b;
}

TEST(the_preferred_come_first_and_then_the_newest)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = storage();
    CLEANUP(pack_choice_done) struct pack_choice c = {.n = 0};
    char names[3][MEMORY_PACK_NAME_LEN + 1], want[MEMORY_PACK_NAME_LEN + 1];
    name_of(6, 994, names[0]);
    name_of(2, 998, names[1]);
    char *prefer[] = {names[0], names[1], names[0]}; /* one twice */
    CHECK_OK(pack_choice_make(b, prefer, 3, 5, &c, &err));
    CHECK_INT(c.n, 5);
    const unsigned order[] = {6, 2, 0, 1, 3};
    for (unsigned i = 0; i < 5; i++) {
        name_of(order[i], 1000 - order[i], want);
        CHECK_STR(c.names[i], want);
    }
}

TEST(no_more_are_chosen_than_may_be)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = storage();
    CLEANUP(pack_choice_done) struct pack_choice c = {.n = 0};
    CLEANUP(pack_choice_done) struct pack_choice all = {.n = 0};
    char names[2][MEMORY_PACK_NAME_LEN + 1];
    name_of(6, 994, names[0]);
    name_of(7, 993, names[1]);
    char *prefer[] = {names[0], names[1]};
    CHECK_OK(pack_choice_make(b, prefer, 2, 1, &c, &err));
    CHECK_INT(c.n, 1);
    CHECK_STR(c.names[0], names[0]);
    CHECK_OK(pack_choice_make(b, NULL, 0, 100, &all, &err));
    CHECK_INT(all.n, 8);
}
