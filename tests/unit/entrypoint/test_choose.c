#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "entrypoint/choose.h"
#include "harness/test.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static const char good[] = "{\"success\": true}", bad[] = "{\"success\": false}";

/* A file below the test's directory, whose folder it makes. */
static void put(const char *folder, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *dir = mem_asprintf("%s/%s", test_dir(), folder);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", dir, name);
    CHECK_OK(fs_mkdirs(dir, 0755, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0644, &err));
}

static void checkpoint(const char *folder, const char *done)
{
    put(folder, "metadata.json", "{}");
    if (done)
        put(folder, "checkpoint.done", done);
}

struct places {
    char *store, *trigger, *embedded;
};

static void places_done(struct places *p)
{
    mem_freep(&p->store);
    mem_freep(&p->trigger);
    mem_freep(&p->embedded);
}

static struct places places(struct settings *out)
{
    struct places p = {mem_asprintf("%s/store", test_dir()),
                       mem_asprintf("%s/trigger/file", test_dir()),
                       mem_asprintf("%s/embedded", test_dir())};
    *out = (struct settings){
        .hash = "abc", .path = p.store, .trigger = p.trigger, .embedded = p.embedded};
    return p;
}

/* The last element of what is chosen; NULL: nothing. */
static char *chosen(const struct settings *s)
{
    struct err err = ERR_INIT;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    enum rc rc = choose_checkpoint(s, &e, &err);
    if (rc == RC_NOT_FOUND)
        return NULL;
    CHECK_OK(rc);
    return mem_strdup(strrchr(store_entry_path(e), '/') + 1);
}

static void check_chosen(const struct settings *s, const char *want)
{
    CLEANUP(mem_freep) char *name = chosen(s);
    CHECK_STR(name ? name : "nothing", want ? want : "nothing");
}

TEST(embedded_comes_before_the_hash_and_that_before_the_trigger)
{
    struct settings s;
    CLEANUP(places_done) struct places p = places(&s);
    CLEANUP(mem_freep) char *named = mem_asprintf(" \n\t%s/other \r\n", test_dir());
    check_chosen(&s, NULL);
    checkpoint("other", good);
    put("trigger", "file", named);
    check_chosen(&s, "other");
    checkpoint("store/abc", good);
    check_chosen(&s, "abc");
    checkpoint("embedded", NULL);
    check_chosen(&s, "embedded");
}

TEST(what_says_that_it_failed_does_not_count_and_the_next_does)
{
    struct err err = ERR_INIT;
    struct settings s;
    struct store_entry *e = NULL;
    CLEANUP(places_done) struct places p = places(&s);
    CLEANUP(mem_freep) char *named = mem_asprintf("%s/other", test_dir());
    checkpoint("embedded", bad);
    checkpoint("store/abc", bad);
    CHECK_RC(choose_checkpoint(&s, &e, &err), RC_INVALID);
    checkpoint("other", good);
    put("trigger", "file", named);
    check_chosen(&s, "other");
    checkpoint("embedded", good);
    check_chosen(&s, "embedded");
}

TEST(a_hash_or_trigger_that_leads_elsewhere_is_refused)
{
    static const char *const hashes[] = {"../other", "..", "a/b", "tmp"};
    struct settings s;
    struct store_entry *e = NULL;
    CLEANUP(places_done) struct places p = places(&s);
    CLEANUP(mem_freep) char *up = mem_asprintf("%s/store/../other", test_dir());
    checkpoint("other", good);
    checkpoint("store", good);
    for (size_t i = 0; i < ARRAY_LEN(hashes); i++) {
        struct err err = ERR_INIT;
        s.hash = hashes[i];
        CHECK_RC(choose_checkpoint(&s, &e, &err), RC_INVALID);
        CHECK(strstr(err.msg, "DYN_CHECKPOINT_HASH"));
    }
    s.hash = NULL;
    const char *const triggers[] = {"other", up};
    for (size_t i = 0; i < ARRAY_LEN(triggers); i++) {
        struct err err = ERR_INIT;
        put("trigger", "file", triggers[i]);
        CHECK_RC(choose_checkpoint(&s, &e, &err), RC_INVALID);
    }
    put("trigger", "file", " \n");
    check_chosen(&s, NULL);
}
