#include "backend/ahead.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/httpd.h"
#include "harness/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (((size_t)21 << 20) + 777)
#define PIECE ((size_t)100000)

struct thing {
    char *content;
    atomic_ulong bytes, fetches, running, most;
    atomic_bool fails;
    unsigned pause_ms;
};

static enum rc get(void *object, uint64_t offset, void *data, size_t len, struct err *err)
{
    struct thing *t = object;
    unsigned long now = atomic_fetch_add(&t->running, 1) + 1;
    if (now > atomic_load(&t->most))
        atomic_store(&t->most, now);
    httpd_pause(t->pause_ms);
    atomic_fetch_sub(&t->running, 1);
    if (atomic_load(&t->fails))
        return err_set(err, RC_UNAVAILABLE, "it fails");
    memcpy(data, t->content + offset, len);
    atomic_fetch_add(&t->bytes, len);
    atomic_fetch_add(&t->fetches, 1);
    return RC_OK;
}

static void thing_init(struct thing *t)
{
    t->content = mem_alloc(SIZE);
    for (size_t i = 0; i < SIZE; i++)
        t->content[i] = (char)(i * 167 + (i >> 9) + (i >> 20));
}

/* A piece; whether it was served. */
static bool piece(struct ahead *a, struct thing *t, struct ahead_reader *r, size_t at)
{
    char got[PIECE];
    size_t len = SIZE - at < PIECE ? SIZE - at : PIECE;
    if (!ahead_read(a, t, r, SIZE, at, got, len))
        return false;
    CHECK(memcmp(got, t->content + at, len) == 0);
    return true;
}

TEST(who_reads_in_order_is_served_and_each_block_is_fetched_once)
{
    struct thing t = {.pause_ms = 5};
    struct ahead_reader r = {0};
    CLEANUP(pool_freep) struct pool *pool = pool_new(4);
    CLEANUP(ahead_freep) struct ahead *a = ahead_new(pool, get);
    unsigned served = 0, n = 0;
    thing_init(&t);
    for (size_t at = 0; at < SIZE; at += PIECE, n++)
        served += piece(a, &t, &r, at);
    CHECK(served >= n - 8);
    CHECK_INT(t.bytes, SIZE);
    CHECK(t.most > 1);
    ahead_forget(a, &t);
    mem_freep(&t.content);
}

TEST(who_jumps_about_is_not_served)
{
    struct thing t = {.pause_ms = 0};
    struct ahead_reader r = {0};
    CLEANUP(pool_freep) struct pool *pool = pool_new(4);
    CLEANUP(ahead_freep) struct ahead *a = ahead_new(pool, get);
    thing_init(&t);
    for (size_t i = 0; i < 100; i++)
        CHECK(!piece(a, &t, &r, (i % 2 ? (size_t)15 << 20 : 0) + i * 1000));
    CHECK_INT(t.fetches, 0);
    mem_freep(&t.content);
}

TEST(what_fails_is_left_to_the_caller)
{
    struct thing t = {.fails = true};
    struct ahead_reader r = {0};
    CLEANUP(pool_freep) struct pool *pool = pool_new(4);
    CLEANUP(ahead_freep) struct ahead *a = ahead_new(pool, get);
    thing_init(&t);
    for (size_t at = 0; at < SIZE; at += PIECE)
        CHECK(!piece(a, &t, &r, at));
    ahead_forget(a, &t);
    mem_freep(&t.content);
}

struct reading {
    struct ahead *ahead;
    struct thing *thing;
    struct ahead_reader *reader;
    atomic_ulong *next, *served;
};

static void *read_some(void *arg)
{
    const struct reading *r = arg;
    for (;;) {
        size_t at = atomic_fetch_add(r->next, 1) * PIECE;
        if (at >= SIZE)
            return NULL;
        if (piece(r->ahead, r->thing, r->reader, at))
            atomic_fetch_add(r->served, 1);
    }
}

TEST(threads_read_together)
{
    struct thing t = {.pause_ms = 2};
    struct ahead_reader reader = {0};
    atomic_ulong next = 0, served = 0;
    pthread_t threads[5];
    CLEANUP(pool_freep) struct pool *pool = pool_new(4);
    CLEANUP(ahead_freep) struct ahead *a = ahead_new(pool, get);
    struct reading r = {a, &t, &reader, &next, &served};
    thing_init(&t);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        CHECK(pthread_create(&threads[i], NULL, read_some, &r) == 0);
    for (size_t i = 0; i < ARRAY_LEN(threads); i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    CHECK(served > 180);
    CHECK(t.bytes <= SIZE);
    ahead_forget(a, &t);
    mem_freep(&t.content);
}

TEST(many_objects_share_what_memory_there_is)
{
    enum { THINGS = 12 };
    static struct thing t[THINGS];
    struct ahead_reader r[THINGS] = {{0}};
    CLEANUP(pool_freep) struct pool *pool = pool_new(4);
    CLEANUP(ahead_freep) struct ahead *a = ahead_new(pool, get);
    for (unsigned i = 0; i < THINGS; i++)
        thing_init(&t[i]);
    for (size_t at = 0; at < SIZE; at += PIECE)
        for (unsigned i = 0; i < THINGS; i++)
            (void)piece(a, &t[i], &r[i], at);
    for (unsigned i = 0; i < THINGS; i++) {
        CHECK(t[i].bytes < SIZE + SIZE / 2); /* little is fetched twice */
        ahead_forget(a, &t[i]);
        mem_freep(&t[i].content);
    }
}

TEST(a_child_reads_ahead_for_itself)
{
    if (TEST_EXTRA_THREAD)
        test_skip("machine: the thread sanitizer allows no threads after a fork");
    struct thing t = {.pause_ms = 1};
    struct ahead_reader r = {0};
    CLEANUP(pool_freep) struct pool *pool = pool_new(4);
    CLEANUP(ahead_freep) struct ahead *a = ahead_new(pool, get);
    thing_init(&t);
    for (size_t at = 0; at < SIZE / 2; at += PIECE)
        (void)piece(a, &t, &r, at);
    ahead_before_fork(a);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        unsigned served = 0;
        (void)alarm(20);
        pool_after_fork(pool);
        ahead_after_fork(a);
        for (size_t at = SIZE / 2; at < SIZE; at += PIECE)
            served += piece(a, &t, &r, at);
        _exit(served > 50 ? 0 : 1);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ahead_forget(a, &t);
    mem_freep(&t.content);
}
