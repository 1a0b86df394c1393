/* Test harness: one process per test, TAP on stdout, a private directory per test.
 *
 *   TEST(name) { CHECK(1 + 1 == 2); }
 *
 * A test binary is any number of TEST()s linked with test.c.  Arguments choose tests by prefix.
 * A test fails when a check fails, when it dies, when it runs for more than a minute, or when it
 * leaves a descriptor open that was not open before.  What it left running is killed.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <string.h>

struct test {
    const char *name;
    void (*fn)(void);
    struct test *next;
};

void test_register(struct test *t);
void test_fail(const char *file, int line, const char *fmt, ...) PRINTF_LIKE(3, 4)
    __attribute__((noreturn));
/* End the test as skipped, for want of something that it needs.  In CI a skip is a failure unless
 * `why` starts with "kernel:" or "machine:", which is what no package can provide. */
_Noreturn void test_skip(const char *why);

/* An empty directory that is removed after the test. */
const char *test_dir(void);

/* True under the thread sanitizer, which has a thread of its own in every process. */
#ifdef __SANITIZE_THREAD__
#define TEST_EXTRA_THREAD true
#else
#define TEST_EXTRA_THREAD false
#endif

/* Open descriptors of this process; for leak checks around an operation. */
int test_open_fds(void);

#define TEST(name_)                                                                                \
    static void test_##name_(void);                                                                \
    __attribute__((constructor)) static void test_reg_##name_(void)                                \
    {                                                                                              \
        static struct test t = {.name = #name_, .fn = test_##name_};                               \
        test_register(&t);                                                                         \
    }                                                                                              \
    static void test_##name_(void)

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            test_fail(__FILE__, __LINE__, "%s", #cond);                                            \
    } while (0)

/* Evaluate a fallible call with `struct err err` in scope and compare its code. */
#define CHECK_RC(call, want)                                                                       \
    do {                                                                                           \
        enum rc got_ = (call);                                                                     \
        if (got_ != (want))                                                                        \
            test_fail(__FILE__, __LINE__, "%s: got %s, want %s (%s)", #call, rc_name(got_),        \
                      rc_name(want), got_ ? err.msg : "");                                         \
    } while (0)
#define CHECK_OK(call) CHECK_RC(call, RC_OK)
#define CHECK_STR(got, want)                                                                       \
    do {                                                                                           \
        const char *g_ = (got), *w_ = (want);                                                      \
        if (!g_ || strcmp(g_, w_) != 0)                                                            \
            test_fail(__FILE__, __LINE__, "%s: got \"%s\", want \"%s\"", #got, g_ ? g_ : "(null)", \
                      w_);                                                                         \
    } while (0)
#define CHECK_INT(got, want)                                                                       \
    do {                                                                                           \
        long long gi_ = (long long)(got), wi_ = (long long)(want);                                 \
        if (gi_ != wi_)                                                                            \
            test_fail(__FILE__, __LINE__, "%s: got %lld, want %lld", #got, gi_, wi_);              \
    } while (0)
