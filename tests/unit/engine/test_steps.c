#include "base/compiler.h"
#include "base/sys.h"
#include "engine/steps.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

struct trace {
    char text[256];
    const char *failing;
};

static void note(struct trace *t, const char *what)
{
    size_t n = strlen(t->text);
    for (; *what && n + 1 < sizeof(t->text); what++)
        t->text[n++] = *what;
}

static enum rc run(void *ctx, const char *name, struct err *err)
{
    struct trace *t = ctx;
    note(t, name);
    return t->failing && strcmp(t->failing, name) == 0 ? err_set(err, RC_NO_SPACE, "full") : RC_OK;
}

static enum rc run_a(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    return run(ctx, "a", err);
}

static enum rc run_b(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    return run(ctx, "b", err);
}

static enum rc run_c(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    return run(ctx, "c", err);
}

static void undo_a(void *ctx)
{
    note(ctx, "A");
}

static void undo_b(void *ctx)
{
    note(ctx, "B");
}

static const struct step steps[] = {{"a", "do a", run_a, undo_a, 0},
                                    {"b", "do b", run_b, undo_b, 0},
                                    {"c", "do c", run_c, NULL, 0}};

static bool only_without_failure(const void *ctx)
{
    return !((const struct trace *)ctx)->failing;
}

TEST(a_step_that_is_not_wanted_leaves_no_trace)
{
    struct err err = ERR_INIT;
    struct steps_timings t;
    static const struct step some[] = {{"a", "do a", run_a, undo_a, 0, NULL},
                                       {"b", "do b", run_b, undo_b, 0, only_without_failure},
                                       {"c", "do c", run_c, NULL, 0, NULL}};
    struct trace whole = {.failing = NULL}, part = {.failing = "c"};
    CHECK_OK(steps_run(some, 3, &whole, 0, NULL, &t, &err));
    CHECK_STR(whole.text, "abc");
    CHECK_INT(t.n, 3);
    CHECK_RC(steps_run(some, 3, &part, 0, NULL, &t, &err), RC_NO_SPACE);
    CHECK_STR(part.text, "acA");
    CHECK_INT(t.n, 2);
}

TEST(all_run_in_order_and_are_timed)
{
    struct err err = ERR_INIT;
    struct trace t = {.text = ""};
    struct steps_timings times;
    CHECK_OK(steps_run(steps, 3, &t, 0, NULL, &times, &err));
    CHECK_STR(t.text, "abc");
    CHECK(times.n == 3 && strcmp(times.step[2].name, "c") == 0);
}

TEST(a_failure_undoes_what_had_succeeded_last_first)
{
    struct err err = ERR_INIT;
    struct trace t = {.failing = "c"};
    struct steps_timings times;
    CHECK_RC(steps_run(steps, 3, &t, 0, NULL, &times, &err), RC_NO_SPACE);
    CHECK_STR(t.text, "abcBA");
    CHECK_STR(err.msg, "cannot do c: full");
    CHECK(times.n == 3);
}

TEST(a_fault_can_be_injected_before_any_step)
{
    struct err err = ERR_INIT;
    struct trace t = {.text = ""};
    struct steps_timings times;
    CHECK(setenv("CHREK_FAULT", "b:fail", 1) == 0);
    CHECK_RC(steps_run(steps, 3, &t, 0, NULL, &times, &err), RC_IO);
    CHECK_STR(t.text, "aA");
}

static enum rc opens(void *ctx, uint64_t deadline, struct err *err)
{
    (void)ctx;
    (void)deadline;
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, "/", O_RDONLY | O_DIRECTORY, 0);
    return fd < 0 ? err_sys(err, "open '/'") : RC_OK;
}

TEST(a_fault_can_be_injected_at_any_call)
{
    static const struct step two[] = {{"a", "open once", opens, NULL, 0},
                                      {"b", "open again", opens, NULL, 0}};
    static const char *const faults[] = {"call:0:fail", "call:1:fail", "call:2:fail"};
    for (size_t i = 0; i < 3; i++) {
        struct err err = ERR_INIT;
        struct steps_timings times;
        CHECK(setenv("CHREK_FAULT", faults[i], 1) == 0);
        CHECK_RC(steps_run(two, 2, NULL, 0, NULL, &times, &err), i < 2 ? RC_IO : RC_OK);
        CHECK_INT(times.n, i < 1 ? 1 : 2);
    }
    fault_disarm();
}
