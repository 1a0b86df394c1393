#include "unit/backend/conformance.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const char blob[] = "some bytes";

static struct backend *open_storage(const struct conformance *c)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CHECK_OK(c->open(c->arg, &b, &err));
    return b;
}

/* The content of an object, or NULL when it is absent. */
static char *content(struct backend *b, const char *key, uint64_t *out_size)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    enum rc rc = backend_open(b, key, &o, &err);
    if (rc == RC_NOT_FOUND) {
        CHECK(!o);
        return NULL;
    }
    CHECK_OK(rc);
    char *data = mem_zalloc(o->size + 1);
    CHECK_OK(backend_read(o, 0, data, o->size, &err));
    *out_size = o->size;
    return data;
}

static void check_content(struct backend *b, const char *key, const void *want, uint64_t len)
{
    uint64_t got = UINT64_MAX;
    CLEANUP(mem_freep) char *data = content(b, key, &got);
    if (!data || got != len || (len && memcmp(data, want, len) != 0))
        test_fail(__FILE__, __LINE__, "'%s' is not what was written", key);
}

static void check_absent(struct backend *b, const char *key)
{
    uint64_t size;
    CLEANUP(mem_freep) char *data = content(b, key, &size);
    CHECK(!data);
}

/* ---- content ---- */

static void what_was_put_comes_back(struct backend *b)
{
    struct err err = ERR_INIT;
    char got[64];
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(backend_put(b, "back/k", blob, sizeof(blob), &err));
    check_content(b, "back/k", blob, sizeof(blob));
    CHECK_OK(backend_open(b, "back/k", &o, &err));
    CHECK_INT(o->size, sizeof(blob));
    CHECK_OK(backend_read(o, 5, got, 3, &err));
    CHECK(memcmp(got, blob + 5, 3) == 0);
    CHECK_OK(backend_read(o, sizeof(blob), got, 0, &err));
    CHECK_RC(backend_read(o, sizeof(blob) - 1, got, 2, &err), RC_CORRUPT);
    CHECK_RC(backend_read(o, sizeof(blob) + 1, got, 0, &err), RC_CORRUPT);
    CHECK_RC(backend_read(o, UINT64_MAX, got, 2, &err), RC_CORRUPT);
    CHECK_OK(backend_put(b, "back/empty", NULL, 0, &err));
    check_content(b, "back/empty", "", 0);
}

static void what_is_not_there_is_not_found(struct backend *b)
{
    struct err err = ERR_INIT;
    char want[128];
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_RC(backend_open(b, "absent/k", &o, &err), RC_NOT_FOUND);
    (void)snprintf(want, sizeof(want), "read 'absent/k' (%s): ", b->ops->name);
    CHECK(!o && strncmp(err.msg, want, strlen(want)) == 0);
    CHECK_RC(backend_remove(b, "absent/k", &err), RC_NOT_FOUND);
    CHECK_RC(backend_open(b, "absent", &o, &err), RC_NOT_FOUND);
}

static void the_first_writer_wins(struct backend *b)
{
    struct err err = ERR_INIT;
    char want[128];
    CHECK_OK(backend_put(b, "first/k", blob, sizeof(blob), &err));
    CHECK_RC(backend_put(b, "first/k", "other", 5, &err), RC_EXISTS);
    (void)snprintf(want, sizeof(want), "write 'first/k' (%s): ", b->ops->name);
    CHECK(strncmp(err.msg, want, strlen(want)) == 0);
    check_content(b, "first/k", blob, sizeof(blob));

    CLEANUP(backend_abortp) struct backend_upload *one = NULL;
    CLEANUP(backend_abortp) struct backend_upload *two = NULL;
    CHECK_OK(backend_begin(b, "first/both", &one, &err));
    CHECK_OK(backend_begin(b, "first/both", &two, &err));
    CHECK_OK(backend_append(one, "one", 3, &err));
    CHECK_OK(backend_append(two, "two", 3, &err));
    CHECK_OK(backend_commit(two, &err));
    CHECK_RC(backend_commit(one, &err), RC_EXISTS);
    check_content(b, "first/both", "two", 3);
}

static void who_asks_to_replace_replaces(struct backend *b)
{
    struct err err = ERR_INIT;
    char got[sizeof(blob)];
    static const char *const texts[] = {"new", "newer"};
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(backend_put(b, "replaced/k", blob, sizeof(blob), &err));
    CHECK_OK(backend_open(b, "replaced/k", &o, &err));
    for (size_t i = 0; i < ARRAY_LEN(texts); i++) {
        CLEANUP(backend_abortp) struct backend_upload *u = NULL;
        CHECK_OK(backend_begin(b, "replaced/k", &u, &err));
        backend_replaces(u);
        CHECK_OK(backend_append(u, texts[i], strlen(texts[i]), &err));
        CHECK_OK(backend_commit(u, &err));
        check_content(b, "replaced/k", texts[i], strlen(texts[i]));
    }
    enum rc rc = backend_read(o, 0, got, sizeof(got), &err);
    CHECK(rc == RC_NOT_FOUND || (rc == RC_OK && memcmp(got, blob, sizeof(got)) == 0));
    CHECK_RC(backend_put(b, "replaced/k", blob, sizeof(blob), &err), RC_EXISTS);
    CHECK_OK(backend_remove(b, "replaced/k", &err));

    CLEANUP(backend_abortp) struct backend_upload *u = NULL; /* nothing to be replaced is fine */
    CHECK_OK(backend_begin(b, "replaced/k", &u, &err));
    backend_replaces(u);
    CHECK_OK(backend_append(u, "first", 5, &err));
    CHECK_OK(backend_commit(u, &err));
    check_content(b, "replaced/k", "first", 5);
}

static void a_look_tells_size_and_whether_it_was_replaced(struct backend *b)
{
    struct err err = ERR_INIT;
    struct backend_info one = {0}, two = {0};
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    char data[7];
    CHECK_RC(backend_stat(b, "look/absent", &one, &err), RC_NOT_FOUND);
    CHECK_OK(backend_put(b, "look/empty", NULL, 0, &err));
    CHECK_OK(backend_stat(b, "look/empty", &one, &err));
    CHECK_INT(one.size, 0);
    CHECK_OK(backend_put(b, "look/one", "content", 7, &err));
    CHECK_OK(backend_stat(b, "look/one", &one, &err));
    CHECK_INT(one.size, 7);
    CHECK_OK(backend_open_known(b, "look/one", &(struct backend_info){.size = one.size}, &o, &err));
    CHECK_OK(backend_read(o, 1, data, 2, &err)); /* who knows only its size */
    CHECK(memcmp(data, "on", 2) == 0);
    backend_closep(&o);
    CHECK_OK(backend_open_known(b, "look/one", &one, &o, &err));
    CHECK_INT(o->size, 7);
    CHECK_OK(backend_read(o, 0, data, 7, &err));
    CHECK(memcmp(data, "content", 7) == 0);
    CHECK_OK(backend_begin(b, "look/one", &u, &err));
    backend_replaces(u);
    CHECK_OK(backend_append(u, "another", 7, &err));
    CHECK_OK(backend_commit(u, &err));
    CHECK_OK(backend_stat(b, "look/one", &two, &err));
    CHECK(!*one.tag || strcmp(one.tag, two.tag) != 0);
    CHECK_OK(backend_remove(b, "look/one", &err));
    CHECK_OK(backend_remove(b, "look/empty", &err));
}

static void removed_is_gone_and_may_be_written_again(struct backend *b)
{
    struct err err = ERR_INIT;
    char got[sizeof(blob)];
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(backend_put(b, "removed/k", blob, sizeof(blob), &err));
    CHECK_OK(backend_open(b, "removed/k", &o, &err));
    CHECK_OK(backend_remove(b, "removed/k", &err));
    check_absent(b, "removed/k");
    enum rc rc = backend_read(o, 0, got, sizeof(got), &err);
    CHECK(rc == RC_NOT_FOUND || (rc == RC_OK && memcmp(got, blob, sizeof(got)) == 0));
    CHECK_OK(backend_put(b, "removed/k", "new", 3, &err));
    check_content(b, "removed/k", "new", 3);
}

/* ---- keys ---- */

static void odd_keys_are_refused(struct backend *b)
{
    char long_key[BACKEND_KEY_MAX + 2], long_part[BACKEND_PART_MAX + 2];
    memset(long_key, 'k', sizeof(long_key));
    for (size_t i = 100; i < sizeof(long_key); i += 100)
        long_key[i] = '/';
    memset(long_part, 'k', sizeof(long_part));
    long_key[sizeof(long_key) - 1] = long_part[sizeof(long_part) - 1] = '\0';
    const char *const bad[] = {"",     ".",   "..",  "../k", "a/../k",  "/a",     "a/",     "a//b",
                               ".a/b", "a b", "a\n", "ä",    "a/.up-x", long_key, long_part};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct backend_upload *u = NULL;
        struct backend_object *o = NULL;
        CHECK_RC(backend_put(b, bad[i], blob, 1, &err), RC_INVALID);
        CHECK(strstr(err.msg, "is no key"));
        CHECK_RC(backend_begin(b, bad[i], &u, &err), RC_INVALID);
        CHECK_RC(backend_open(b, bad[i], &o, &err), RC_INVALID);
        CHECK_RC(backend_remove(b, bad[i], &err), RC_INVALID);
        CHECK(!u && !o);
    }
    struct err err = ERR_INIT;
    long_key[BACKEND_KEY_MAX] = '\0';
    long_part[BACKEND_PART_MAX] = '\0';
    const char *const good[] = {"a", "Az0._-", "a/b/c", long_key, long_part};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        if (strcmp(good[i], "a") == 0) /* a key is no folder of others at the same time */
            continue;
        CHECK_OK(backend_put(b, good[i], blob, sizeof(blob), &err));
        check_content(b, good[i], blob, sizeof(blob));
        CHECK_OK(backend_remove(b, good[i], &err));
    }
}

/* ---- pieces ---- */

static void fill(char *data, size_t len)
{
    uint64_t x = 88172645463325252ULL;
    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        data[i] = (char)x;
    }
}

/* 13 MiB in pieces of odd sizes: drivers that send parts have theirs full at odd places. */
static void pieces_become_one_object(struct backend *b)
{
    struct err err = ERR_INIT;
    size_t len = ((size_t)13 << 20) + 17, at = 0;
    CLEANUP(mem_freep) char *data = mem_alloc(len);
    CLEANUP(mem_freep) char *part = mem_alloc(3 << 20);
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    fill(data, len);
    CHECK_OK(backend_begin(b, "pieces/big", &u, &err));
    for (size_t n = 1; at < len; at += n, n = n * 3 + 1) {
        n = n < len - at ? n : len - at;
        CHECK_OK(backend_append(u, data + at, n, &err));
    }
    CHECK_OK(backend_append(u, NULL, 0, &err));
    CHECK_INT(u->size, len);
    check_absent(b, "pieces/big");
    CHECK_OK(backend_commit(u, &err));
    backend_abortp(&u);
    CHECK(!u);
    check_content(b, "pieces/big", data, len);
    CHECK_OK(backend_open(b, "pieces/big", &o, &err));
    for (at = 5 << 20; at + 99 < len; at += (1 << 20) + 1) {
        CHECK_OK(backend_read(o, at, part, 99, &err));
        CHECK(memcmp(part, data + at, 99) == 0);
    }
    CHECK_OK(backend_remove(b, "pieces/big", &err));
}

static enum rc no_visit(void *arg, const char *key, uint64_t size, struct err *err)
{
    (void)arg;
    (void)size;
    return err_set(err, RC_CONFLICT, "'%s' was listed", key);
}

static void what_was_given_up_leaves_nothing(struct backend *b)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    CHECK_OK(backend_begin(b, "up/k", &u, &err));
    CHECK_OK(backend_append(u, blob, sizeof(blob), &err));
    CHECK_OK(backend_list(b, "up/", no_visit, NULL, &err));
    backend_abortp(&u);
    check_absent(b, "up/k");
    CHECK_OK(backend_list(b, "up/", no_visit, NULL, &err));
    backend_abortp(&u); /* nothing is fine */
}

/* ---- listings ---- */

struct seen {
    struct backend *backend;
    unsigned n;
    uint64_t bytes;
    bool removes;
};

static enum rc see(void *arg, const char *key, uint64_t size, struct err *err)
{
    struct seen *s = arg;
    s->n++;
    s->bytes += size;
    return s->removes ? backend_remove(s->backend, key, err) : RC_OK;
}

static unsigned count(struct backend *b, const char *prefix, uint64_t want_bytes)
{
    struct err err = ERR_INIT;
    struct seen s = {.backend = b};
    CHECK_OK(backend_list(b, prefix, see, &s, &err));
    CHECK_INT(s.bytes, want_bytes);
    return s.n;
}

static void listings_go_by_prefix(struct backend *b)
{
    struct err err = ERR_INIT;
    static const char *const keys[] = {"list/aa/1", "list/aa/22", "list/ab/333", "list/b"};
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        CHECK_OK(backend_put(b, keys[i], blob, i + 1, &err));
    CHECK_INT(count(b, "list/", 10), 4);
    CHECK_INT(count(b, "list/aa/", 3), 2);
    CHECK_INT(count(b, "list/a", 6), 3);
    CHECK_INT(count(b, "list/aa/22", 2), 1);
    CHECK_INT(count(b, "list/aa/2", 2), 1);
    CHECK_INT(count(b, "nobody/", 0), 0);
    CHECK(count(b, "list", 10) == 4);
    CHECK_RC(backend_list(b, "list/", no_visit, NULL, &err), RC_CONFLICT);
    CHECK(strstr(err.msg, "was listed"));
    struct seen s = {.backend = b, .removes = true};
    CHECK_OK(backend_list(b, "list/", see, &s, &err)); /* a visit may use the backend */
    CHECK_INT(s.n, 4);
    CHECK_INT(count(b, "list/", 0), 0);
}

/* More than a page of a listing that a server would give. */
static void long_listings_are_whole(struct backend *b)
{
    struct err err = ERR_INIT;
    enum { MANY = 1200 };
    for (unsigned i = 0; i < MANY; i++) {
        char key[32];
        (void)snprintf(key, sizeof(key), "many/%02x/%u", i % 7, i);
        CHECK_OK(backend_put(b, key, "x", 1, &err));
    }
    CHECK_INT(count(b, "many/", MANY), MANY);
    struct seen s = {.backend = b, .removes = true};
    CHECK_OK(backend_list(b, "many/", see, &s, &err));
    CHECK_INT(s.n, MANY);
    CHECK_OK(backend_list(b, "many/", no_visit, NULL, &err));
}

/* ---- threads ---- */

struct racer {
    struct backend *backend;
    pthread_t thread;
    unsigned number, won;
};

#define RACES 40U
#define RACERS 4U

static void *race(void *arg)
{
    struct racer *r = arg;
    for (unsigned i = 0; i < RACES; i++) {
        char key[32], text[32];
        struct err err = ERR_INIT;
        uint64_t size = 0;
        (void)snprintf(key, sizeof(key), "race/%u", i);
        (void)snprintf(text, sizeof(text), "by %u", r->number);
        enum rc rc = backend_put(r->backend, key, text, sizeof(text), &err);
        r->won += rc == RC_OK;
        if (rc && rc != RC_EXISTS)
            return arg;
        CLEANUP(mem_freep) char *there = content(r->backend, key, &size);
        if (!there || size != sizeof(text) || (rc == RC_OK && strcmp(there, text) != 0))
            return arg;
    }
    return NULL;
}

static void of_many_writers_one_wins(struct backend *b)
{
    struct err err = ERR_INIT;
    struct racer racers[RACERS];
    unsigned won = 0;
    for (unsigned i = 0; i < RACERS; i++) {
        racers[i] = (struct racer){.backend = b, .number = i};
        CHECK(pthread_create(&racers[i].thread, NULL, race, &racers[i]) == 0);
    }
    for (unsigned i = 0; i < RACERS; i++) {
        void *failed = NULL;
        CHECK(pthread_join(racers[i].thread, &failed) == 0 && !failed);
        won += racers[i].won;
    }
    CHECK_INT(won, RACES);
    struct seen s = {.backend = b, .removes = true};
    CHECK_OK(backend_list(b, "race/", see, &s, &err));
    CHECK_INT(s.n, RACES);
}

void conformance(const struct conformance *c)
{
    CLEANUP(backend_freep) struct backend *b = open_storage(c);
    what_is_not_there_is_not_found(b);
    what_was_put_comes_back(b);
    the_first_writer_wins(b);
    who_asks_to_replace_replaces(b);
    a_look_tells_size_and_whether_it_was_replaced(b);
    removed_is_gone_and_may_be_written_again(b);
    odd_keys_are_refused(b);
    pieces_become_one_object(b);
    what_was_given_up_leaves_nothing(b);
    listings_go_by_prefix(b);
    long_listings_are_whole(b);
    of_many_writers_one_wins(b);
}

/* ---- torture ---- */

static const char tortured[] = "torture/deep/k";

static void check_absent_or_whole(struct backend *b)
{
    uint64_t size = 0;
    CLEANUP(mem_freep) char *data = content(b, tortured, &size);
    if (data && (size != 2 * sizeof(blob) || memcmp(data, blob, sizeof(blob)) != 0 ||
                 memcmp(data + sizeof(blob), blob, sizeof(blob)) != 0))
        test_fail(__FILE__, __LINE__, "'%s' is there in part", tortured);
}

static enum rc upload_tortured(struct backend *b, bool replace, struct err *err)
{
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    enum rc rc = backend_begin(b, tortured, &u, err);
    if (!rc && replace)
        backend_replaces(u);
    if (!rc)
        rc = backend_append(u, blob, sizeof(blob), err);
    if (!rc)
        rc = backend_append(u, blob, sizeof(blob), err);
    return rc ? rc : backend_commit(u, err);
}

static enum rc write_tortured(struct backend *b, struct err *err)
{
    return upload_tortured(b, false, err);
}

static enum rc replace_tortured(struct backend *b, struct err *err)
{
    return upload_tortured(b, true, err);
}

static enum rc read_tortured(struct backend *b, struct err *err)
{
    char got[sizeof(blob)];
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    enum rc rc = backend_open(b, tortured, &o, err);
    if (!rc)
        rc = backend_read(o, sizeof(blob), got, sizeof(got), err);
    if (!rc && memcmp(got, blob, sizeof(got)) != 0)
        rc = err_set(err, RC_CONFLICT, "other bytes than were written");
    return rc;
}

static enum rc list_tortured(struct backend *b, struct err *err)
{
    struct seen s = {.backend = b};
    enum rc rc = backend_list(b, "torture/", see, &s, err);
    if (!rc && (s.n > 1 || s.bytes != (size_t)s.n * 2 * sizeof(blob)))
        rc = err_set(err, RC_CONFLICT, "%u objects were listed", s.n);
    return rc;
}

static enum rc remove_tortured(struct backend *b, struct err *err)
{
    return backend_remove(b, tortured, err);
}

static enum rc (*const tortures[])(struct backend *b, struct err *err) = {
    write_tortured, replace_tortured, list_tortured, read_tortured, remove_tortured};

/* Whatever the state of things, the object can be written now. */
static void check_works(struct backend *b)
{
    struct err err = ERR_INIT;
    check_absent_or_whole(b);
    enum rc rc = write_tortured(b, &err);
    CHECK(rc == RC_OK || rc == RC_EXISTS);
    uint64_t size = 0;
    CLEANUP(mem_freep) char *data = content(b, tortured, &size);
    CHECK(data && size == 2 * sizeof(blob));
}

void conformance_failures(const struct conformance *c)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_storage(c);
    for (size_t what = 0; what < ARRAY_LEN(tortures); what++)
        for (unsigned i = 0;; i++) {
            if (what == 0)
                (void)!backend_remove(b, tortured, &err);
            else
                check_works(b);
            int fds = test_open_fds();
            fault_arm(i, FAULT_FAIL);
            enum rc rc = tortures[what](b, &err);
            bool hit = fault_passed() > i;
            fault_disarm();
            if ((rc && !hit) || rc == RC_CONFLICT)
                test_fail(__FILE__, __LINE__, "call %zu, fault point %u: %s", what, i, err.msg);
            CHECK(test_open_fds() == fds);
            check_works(b);
            if (!hit)
                break;
        }
    CHECK_OK(backend_remove(b, tortured, &err));
}

void conformance_crashes(const struct conformance *c)
{
    struct err err = ERR_INIT;
    for (size_t what = 0; what < ARRAY_LEN(tortures); what++)
        for (unsigned i = 0;; i++) {
            CLEANUP(backend_freep) struct backend *b = open_storage(c);
            if (what == 0)
                (void)!backend_remove(b, tortured, &err);
            else
                check_works(b);
            pid_t pid = fork();
            if (pid == 0) {
                CLEANUP(backend_freep) struct backend *own = open_storage(c);
                fault_arm(i, FAULT_CRASH);
                enum rc rc = tortures[what](own, &err);
                fault_disarm();
                _exit(rc ? 1 : 0);
            }
            int status = 0;
            CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
            CHECK(WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == FAULT_EXIT_STATUS);
            check_works(b);
            if (WEXITSTATUS(status) == 0)
                break;
        }
    CLEANUP(backend_freep) struct backend *b = open_storage(c);
    CHECK_OK(backend_remove(b, tortured, &err));
}
