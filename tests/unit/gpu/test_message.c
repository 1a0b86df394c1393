#include "base/compiler.h"
#include "base/mem.h"
#include "gpu/message.h"
#include "harness/test.h"

#include <stdio.h>
#include <string.h>

#define U "GPU-a0000000-1111-2222-3333-444444444444"

static enum rc parse_request(const char *text, struct gpu_request *out, struct err *err)
{
    return gpu_request_parse(text, strlen(text), out, err);
}

static enum rc parse_reply(const char *text, struct gpu_reply *out, struct err *err)
{
    return gpu_reply_parse(text, strlen(text), out, err);
}

TEST(a_request_survives_the_way)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep)
    struct gpu_request *r = mem_zalloc(sizeof(*r)), *back = mem_zalloc(sizeof(*r));
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    *r = (struct gpu_request){.verb = GPU_RESTORE, .timeout_ms = 1500, .n_pids = 2};
    r->pid[0] = 4711;
    r->pid[1] = 9;
    CHECK_OK(gpu_map_parse(U "=" U, &r->map, &err));
    gpu_request_format(r, &text);
    CHECK_STR(text.data, "restore timeout=1500 map=" U "=" U " pids=4711,9");
    CHECK_OK(gpu_request_parse(text.data, text.len, back, &err));
    CHECK_INT(back->verb, r->verb);
    CHECK_INT(back->timeout_ms, r->timeout_ms);
    CHECK_INT(back->n_pids, 2);
    CHECK(back->pid[0] == 4711 && back->pid[1] == 9);
    CHECK_INT(back->map.n, r->map.n);
    CHECK_STR(back->map.pair[0].from, U);
    CHECK_STR(back->map.pair[0].to, U);
    for (int v = 0; v < GPU_VERB_COUNT_; v++) {
        CHECK_OK(parse_request(gpu_verb_name((enum gpu_verb)v), back, &err));
        CHECK_INT(back->verb, v);
    }
}

TEST(requests_that_make_no_sense)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct gpu_request *r = mem_zalloc(sizeof(*r));
    static const char *const bad[] = {
        "",         " ",           "format",          "lock pids=0",
        "lock x=1", "lock pids=x", "lock timeout=-1", "restore map=a=b"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(parse_request(bad[i], r, &err), RC_INVALID);
    CHECK_RC(gpu_request_parse("lock\0pids=1", 11, r, &err), RC_INVALID);
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    buf_adds(&b, "lock pids=1");
    for (int i = 0; i < GPU_PIDS_MAX; i++)
        buf_adds(&b, ",1");
    CHECK_RC(parse_request(b.data, r, &err), RC_INVALID);
}

static void check_device(const struct gpu_device *a, const struct gpu_device *b)
{
    CHECK(a->memory_bytes == b->memory_bytes && a->minor == b->minor && a->mig == b->mig);
    CHECK_STR(a->uuid, b->uuid);
    CHECK_STR(a->name, b->name);
}

static void check_process(const struct gpu_process *a, const struct gpu_process *b)
{
    CHECK(a->pid == b->pid && a->state == b->state && a->thread == b->thread);
    CHECK(a->ns == b->ns && a->code == b->code);
    CHECK_STR(a->why, b->why);
}

TEST(an_answer_survives_the_way)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r)), *back = mem_zalloc(sizeof(*r));
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    *r = (struct gpu_reply){.rc = RC_UNSUPPORTED, .why = "it is\nso", .has_facts = true, .n = 2};
    r->facts =
        (struct gpu_facts){.driver = "580.1", .cuda = 13000, .can_map = true, .n_devices = 1};
    r->facts.device[0] = (struct gpu_device){.uuid = U,
                                             .name = "NVIDIA H100 80GB HBM3",
                                             .memory_bytes = 85899345920ULL,
                                             .minor = 3,
                                             .mig = true};
    r->process[0] = (struct gpu_process){.pid = 5, .state = GPU_LOCKED, .thread = 6, .ns = 77};
    r->process[1] =
        (struct gpu_process){.pid = 8, .state = GPU_FAILED, .code = 801, .why = "no, sir"};
    gpu_reply_format(r, &text);
    CHECK_OK(gpu_reply_parse(text.data, text.len, back, &err));
    CHECK_INT(back->rc, RC_UNSUPPORTED);
    CHECK_STR(back->why, "it is so"); /* a line is a line */
    CHECK(back->has_facts && back->facts.can_map && !back->facts.can_checkpoint);
    check_device(&back->facts.device[0], &r->facts.device[0]);
    CHECK_INT(back->n, 2);
    check_process(&back->process[0], &r->process[0]);
    check_process(&back->process[1], &r->process[1]);
}

TEST(a_machine_without_driver_answers_too)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    r->has_facts = true;
    gpu_reply_format(r, &text);
    CHECK_STR(text.data, "ok\ndriver - 0 0 0\n");
    CHECK_OK(gpu_reply_parse(text.data, text.len, r, &err));
    CHECK_STR(r->facts.driver, "");
}

TEST(answers_that_make_no_sense)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    static const char *const bad[] = {"",
                                      "yes",
                                      "error",
                                      "error 0 fine",
                                      "error 99 what",
                                      "ok\nnoise",
                                      "ok\ndriver 580",
                                      "ok\ndriver 580 13000 2 0",
                                      "ok\ndevice GPU-x 1 2 0 name",
                                      "ok\nprocess 0 running 0 0",
                                      "ok\nprocess 5 asleep 0 0",
                                      "ok\nfailed 5 801 text",
                                      "ok\nprocess 5 running 0 0\nfailed 6 801 text"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(parse_reply(bad[i], r, &err), RC_CORRUPT);
    CHECK_RC(gpu_reply_parse("ok\0", 3, r, &err), RC_CORRUPT);
}

TEST(the_longest_answer_fits_into_a_packet)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CLEANUP(buf_done) struct buf text = {.max = GPU_MESSAGE_MAX};
    r->rc = RC_IO;
    r->n = GPU_PIDS_MAX;
    for (size_t i = 0; i < r->n; i++) {
        r->process[i] = (struct gpu_process){.pid = 4194304,
                                             .state = GPU_CHECKPOINTED,
                                             .thread = 4194304,
                                             .ns = UINT64_MAX,
                                             .code = 801};
        memset(r->process[i].why, 'x', GPU_WHY_MAX - 1);
    }
    gpu_reply_format(r, &text);
    CHECK(!text.overflowed);
}

TEST(states_have_names)
{
    CHECK_STR(gpu_state_name(GPU_RUNNING), "running");
    CHECK_STR(gpu_state_name(GPU_CHECKPOINTED), "checkpointed");
}
