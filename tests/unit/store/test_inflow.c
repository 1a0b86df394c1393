#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "store/inflow.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define SIZE ((size_t)60 * INFLOW_BLOCK + 12345) /* more than there are slots */
#define BEGIN ((size_t)777)
#define PIECE ((size_t)90001)

/* A storage of one object that is made up, counts what is read, and of which blocks may fail. */
struct made_up {
    struct backend base;
    struct backend_object object;
    atomic_ulong bytes;
    uint64_t bad; /* the first reads of this block fail */
    atomic_uint failures;
};

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 167 + (i >> 9) + (i >> 20));
}

static enum rc read_made_up(struct backend_object *o, uint64_t offset, void *data, size_t len,
                            struct err *err)
{
    struct made_up *m = (struct made_up *)o->backend;
    if (offset / INFLOW_BLOCK == m->bad && atomic_load(&m->failures) > 0) {
        atomic_fetch_sub(&m->failures, 1);
        return err_set(err, RC_UNAVAILABLE, "no connection");
    }
    atomic_fetch_add(&m->bytes, len);
    for (size_t i = 0; i < len; i++)
        ((uint8_t *)data)[i] = byte_at((size_t)offset + i);
    return RC_OK;
}

static const struct backend_ops made_up_ops = {.name = "made up", .read = read_made_up};

static void make_up(struct made_up *m, unsigned failures)
{
    memset(m, 0, sizeof(*m));
    m->base.ops = &made_up_ops;
    m->bad = 7;
    atomic_store(&m->failures, failures);
    m->object = (struct backend_object){.backend = &m->base, .key = "x", .size = SIZE};
}

/* Readers who share the pieces among them, in order. */
struct readers {
    struct inflow *inflow;
    atomic_ulong next;
    enum rc rc; /* of the last failure */
};

static void *read_pieces(void *arg)
{
    struct readers *r = arg;
    CLEANUP(mem_freep) uint8_t *got = mem_alloc(PIECE);
    for (;;) {
        size_t at = BEGIN + atomic_fetch_add(&r->next, 1) * PIECE;
        if (at >= SIZE)
            return NULL;
        size_t len = SIZE - at < PIECE ? SIZE - at : PIECE;
        enum rc rc = inflow_read(r->inflow, at, got, len, NULL);
        if (rc)
            r->rc = rc;
        for (size_t i = 0; !rc && i < len; i++)
            if (got[i] != byte_at(at + i))
                r->rc = RC_CORRUPT;
    }
}

static enum rc read_with(struct made_up *m, unsigned threads)
{
    struct readers r = {.inflow = inflow_new(&m->object, BEGIN, 4)};
    pthread_t thread[8];
    CHECK(r.inflow != NULL);
    for (unsigned i = 0; i < threads; i++)
        CHECK(pthread_create(&thread[i], NULL, read_pieces, &r) == 0);
    for (unsigned i = 0; i < threads; i++)
        (void)pthread_join(thread[i], NULL);
    inflow_freep(&r.inflow);
    return r.rc;
}

TEST(every_byte_is_right_and_fetched_once)
{
    for (unsigned threads = 1; threads <= 8; threads += 7) {
        struct made_up m;
        make_up(&m, 0);
        CHECK_INT(read_with(&m, threads), RC_OK);
        CHECK_INT(m.bytes, SIZE - BEGIN);
    }
}

TEST(what_could_not_be_fetched_is_read_by_who_wants_it)
{
    struct made_up m;
    make_up(&m, 1);
    CHECK_INT(read_with(&m, 3), RC_OK);
    CHECK_INT(m.bytes, SIZE - BEGIN);
    CHECK_INT(m.failures, 0);
}

TEST(a_reader_is_told_that_a_part_cannot_be_had_and_the_rest_goes_on)
{
    struct made_up m;
    make_up(&m, 1000);
    CHECK_INT(read_with(&m, 3), RC_UNAVAILABLE);
    CHECK(m.bytes >= SIZE - BEGIN - 2 * INFLOW_BLOCK);
}

TEST(it_ends_when_nobody_reads)
{
    struct made_up m;
    uint8_t some[100];
    struct err err = ERR_INIT;
    make_up(&m, 0);
    struct inflow *f = inflow_new(&m.object, BEGIN, 4);
    CHECK(f != NULL);
    CHECK_OK(inflow_read(f, BEGIN, some, sizeof(some), &err));
    CHECK(some[5] == byte_at(BEGIN + 5));
    inflow_freep(&f);
    CHECK(f == NULL && m.bytes <= INFLOW_SLOTS * INFLOW_BLOCK);
}

TEST(before_its_begin_and_past_its_end_it_is_the_object)
{
    struct made_up m;
    uint8_t some[10];
    struct err err = ERR_INIT;
    make_up(&m, 0);
    struct inflow *f = inflow_new(&m.object, BEGIN, 1);
    CHECK(f != NULL);
    CHECK_OK(inflow_read(f, 3, some, sizeof(some), &err));
    CHECK(some[0] == byte_at(3) && some[9] == byte_at(12));
    CHECK_RC(inflow_read(f, SIZE - 4, some, sizeof(some), &err), RC_CORRUPT);
    inflow_freep(&f);
}
