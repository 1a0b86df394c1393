#include "backend/url.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "unit/backend/conformance.h"
#include "unit/backend/fake_s3.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static char *env(const char *name)
{
    static char access[] = "AKTEST", secret[] = "secret/of+test";
    if (strcmp(name, "AWS_ACCESS_KEY_ID") == 0)
        return access;
    return strcmp(name, "AWS_SECRET_ACCESS_KEY") == 0 ? secret : NULL;
}

static struct backend *open_fake(const struct fake_s3 *f, const char *more)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CLEANUP(mem_freep) char *url = mem_asprintf("%s%s", fake_s3_url(f), more);
    CHECK_OK(backend_open_url(url, &(struct backend_options){.env = env}, &b, &err));
    return b;
}

static enum rc open_for_suite(void *arg, struct backend **out, struct err *err)
{
    (void)err;
    *out = open_fake(arg, "");
    return RC_OK;
}

TEST(conforms)
{
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    conformance(&(struct conformance){.open = open_for_suite, .arg = f});
    CHECK_INT(fake_s3_uploads(f), 0);
}

/* ---- failures that pass ---- */

#define BIG (((size_t)20 << 20) + 123)

static char *pattern(size_t len)
{
    char *p = mem_alloc(len + 1);
    for (size_t i = 0; i < len; i++)
        p[i] = (char)(i * 167 + (i >> 9) + (i >> 20));
    return p;
}

static enum rc write_big(struct backend *b, const char *key, const char *data, struct err *err)
{
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    enum rc rc = backend_begin(b, key, &u, err);
    for (size_t at = 0, n; !rc && at < BIG; at += n) {
        n = BIG - at < 3000000 ? BIG - at : 3000000;
        rc = backend_append(u, data + at, n, err);
    }
    return rc ? rc : backend_commit(u, err);
}

static enum rc count_one(void *arg, const char *key, uint64_t size, struct err *err)
{
    (void)key, (void)size, (void)err;
    ++*(unsigned *)arg;
    return RC_OK;
}

static void work_through(struct backend *b, unsigned round)
{
    struct err err = ERR_INIT;
    char big[32], key[32];
    unsigned listed = 0;
    CLEANUP(mem_freep) char *data = pattern(BIG);
    CLEANUP(mem_freep) char *got = mem_alloc(BIG);
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    (void)snprintf(big, sizeof(big), "round-%u/big", round);
    CHECK_OK(write_big(b, big, data, &err));
    CHECK_RC(backend_put(b, big, "x", 1, &err), RC_EXISTS);
    CHECK_RC(write_big(b, big, data, &err), RC_EXISTS);
    CHECK_OK(backend_open(b, big, &o, &err));
    CHECK_INT(o->size, BIG);
    CHECK_OK(backend_read(o, 0, got, BIG, &err));
    CHECK(memcmp(got, data, BIG) == 0);
    CHECK_OK(backend_read(o, 7654321, got, 100000, &err));
    CHECK(memcmp(got, data + 7654321, 100000) == 0);
    for (unsigned i = 0; i < 4; i++) {
        (void)snprintf(key, sizeof(key), "round-%u/small-%u", round, i);
        CHECK_OK(backend_put(b, key, data, (size_t)i * 1000, &err));
    }
    (void)snprintf(key, sizeof(key), "round-%u/", round);
    CHECK_OK(backend_list(b, key, count_one, &listed, &err));
    CHECK_INT(listed, 5);
}

static void check_unnoticed(enum fake_fault fault)
{
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    fake_s3_fail(f, fault);
    work_through(b, 0);
    if (fault != FAKE_MUTE) /* of an upload whose beginning was not heard, only a sweep can know */
        CHECK_INT(fake_s3_uploads(f), 0);
}

TEST(a_storm_of_503_is_not_noticed)
{
    check_unnoticed(FAKE_STORM);
}

TEST(requests_that_are_not_heard_are_not_noticed)
{
    check_unnoticed(FAKE_DEAF);
}

TEST(answers_that_are_lost_are_not_noticed)
{
    check_unnoticed(FAKE_MUTE);
}

TEST(bodies_that_break_off_are_not_noticed)
{
    check_unnoticed(FAKE_HALF);
}

TEST(ranges_that_are_short_are_not_noticed)
{
    check_unnoticed(FAKE_SHORT);
}

TEST(bodies_that_pause_are_not_noticed)
{
    check_unnoticed(FAKE_TRICKLE);
}

TEST(parts_are_sent_at_the_same_time)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *data = pattern(BIG);
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    CHECK_OK(write_big(b, "k", data, &err));
    CHECK(fake_s3_parallel(f) > 1);
}

/* ---- failures that do not ---- */

static void check_nothing_left(struct fake_s3 *f, unsigned objects)
{
    CHECK_INT(fake_s3_uploads(f), 0);
    CHECK_INT(fake_s3_objects(f), objects);
}

TEST(lies_about_parts_leave_nothing)
{
    static const enum fake_fault faults[] = {FAKE_LIAR, FAKE_NO_TAGS, FAKE_LATE_ERROR};
    static const enum rc codes[] = {RC_CORRUPT, RC_CORRUPT, RC_IO};
    CLEANUP(mem_freep) char *data = pattern(BIG);
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
        struct err err = ERR_INIT;
        fake_s3_fail(f, faults[i]);
        CHECK_RC(write_big(b, "k", data, &err), codes[i]);
        check_nothing_left(f, 0);
    }
}

TEST(an_object_that_becomes_another_is_not_mixed_with_it)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *data = pattern(BIG);
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(backend_closep) struct backend_object *fickle = NULL;
    CHECK_OK(write_big(b, "k", data, &err));
    CHECK_OK(backend_open(b, "k", &o, &err));
    CHECK_OK(backend_remove(b, "k", &err));
    CHECK_OK(write_big(b, "k", data, &err));
    CHECK_RC(backend_read(o, 1000000, data, 10, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "another object has taken its place"));
    fake_s3_fail(f, FAKE_FICKLE);
    CHECK_OK(backend_open(b, "k", &fickle, &err));
    CHECK_RC(backend_read(fickle, 1000000, data, 10, &err), RC_NOT_FOUND);
}

TEST(what_the_server_refuses_is_explained)
{
    static const struct {
        const char *code, *said;
        unsigned status;
        enum rc rc;
    } cases[] = {
        {"AccessDenied", "s3:GetObject", 403, RC_DENIED},
        {"InvalidAccessKeyId", "access key from the environment", 403, RC_DENIED},
        {"SignatureDoesNotMatch", "secret key from the environment", 403, RC_DENIED},
        {"RequestTimeTooSkewed", "2001-02-03T04:05:06Z; set it", 403, RC_DENIED},
        {"ExpiredToken", "has expired", 400, RC_DENIED},
        {"NoSuchBucket", "there is no bucket 'bucket'", 404, RC_INVALID},
        {"NoSuchKey", "no such object", 404, RC_NOT_FOUND},
        {"QuotaExceeded", "quota", 403, RC_NO_SPACE},
        {"XMinioStorageFull", "full: said <so>", 507, RC_NO_SPACE},
        {"PermanentRedirect", "another region", 301, RC_INVALID},
        {"AuthorizationHeaderMalformed", "add ?region=", 400, RC_INVALID},
        {"EntityTooLarge", "EntityTooLarge", 413, RC_TOO_BIG},
        {"NotImplemented", "lacks a feature", 501, RC_UNSUPPORTED},
        {"Other", "status 400 Other: said <so>", 400, RC_IO},
    };
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        struct backend_object *o = NULL;
        fake_s3_refuse(f, cases[i].status, cases[i].code);
        CHECK_RC(backend_put(b, "k", "x", 1, &err), cases[i].rc);
        CHECK_RC(backend_open(b, "k", &o, &err), cases[i].rc);
        if (!strstr(err.msg, cases[i].said))
            test_fail(__FILE__, __LINE__, "%s: %s", cases[i].code, err.msg);
        CHECK(!strstr(err.msg, "secret/of+test"));
    }
    check_nothing_left(f, 0);
}

TEST(what_dead_writers_left_is_swept_once_it_is_old)
{
    struct err err = ERR_INIT;
    unsigned listed = 0;
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    fake_s3_leave_upload(f, "some/prefix/old", 48 * 3600);
    fake_s3_leave_upload(f, "some/prefix/young", 3600);
    fake_s3_leave_upload(f, "of/somebody/else", 48 * 3600);
    CHECK_OK(backend_list(b, "", count_one, &listed, &err));
    CHECK_INT(fake_s3_uploads(f), 2);
    CHECK_OK(backend_list(b, "", count_one, &listed, &err));
    CHECK_INT(listed, 0);
}

/* ---- settings ---- */

TEST(objects_are_encrypted_as_the_url_says)
{
    struct err err = ERR_INIT;
    char text[64];
    CLEANUP(mem_freep) char *data = pattern(BIG);
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *plain = open_fake(f, "");
    CLEANUP(backend_freep) struct backend *one = open_fake(f, "&sse=AES256");
    CLEANUP(backend_freep) struct backend *two = open_fake(f, "&sse=aws:kms&sse_kms_key_id=id-1");
    CHECK_OK(backend_put(plain, "a", "x", 1, &err));
    CHECK_STR(fake_s3_seen(f, "x-amz-server-side-encryption", text, sizeof(text)), "");
    CHECK_OK(backend_put(one, "b", "x", 1, &err));
    CHECK_STR(fake_s3_seen(f, "x-amz-server-side-encryption", text, sizeof(text)), "AES256");
    CHECK_OK(write_big(two, "c", data, &err));
    CHECK_STR(fake_s3_seen(f, "x-amz-server-side-encryption", text, sizeof(text)), "aws:kms");
    CHECK_STR(fake_s3_seen(f, "x-amz-server-side-encryption-aws-kms-key-id", text, sizeof(text)),
              "id-1");
}

TEST(settings_that_are_none_are_refused)
{
    static const char *const bad[] = {"s3://",
                                      "s3://Bucket",
                                      "s3://b?endpoint=ftp://h",
                                      "s3://b?endpoint=http://",
                                      "s3://b?endpoint=http://h/path",
                                      "s3://b?endpoint=http://u:p@h",
                                      "s3://b?style=other",
                                      "s3://b?sse=customer",
                                      "s3://b?sse_kms_key_id=x",
                                      "s3://b?region=a/b",
                                      "s3://b/.hidden",
                                      "s3://b?colour=red"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct backend *b = NULL;
        if (backend_open_url(bad[i], &(struct backend_options){.env = env}, &b, &err) != RC_INVALID)
            test_fail(__FILE__, __LINE__, "'%s' was accepted", bad[i]);
        CHECK(!b);
    }
}

static unsigned asked; /* by the test's only thread, and those that it waits for */

static char *expiring(const char *name)
{
    static char old_token[] = "old", new_token[] = "new";
    if (strcmp(name, "AWS_SESSION_TOKEN") == 0)
        return asked++ == 0 ? old_token : new_token;
    return env(name);
}

TEST(an_expired_token_is_fetched_anew_once)
{
    struct err err = ERR_INIT;
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = NULL;
    fake_s3_fail(f, FAKE_EXPIRED);
    CHECK_OK(
        backend_open_url(fake_s3_url(f), &(struct backend_options){.env = expiring}, &b, &err));
    CHECK_OK(backend_put(b, "k", "x", 1, &err));
    CHECK_INT(asked, 2);
}

/* ---- forks ---- */

static bool reads_it(struct backend_object *o, const char *want)
{
    CLEANUP(mem_freep) char *got = mem_alloc(BIG);
    return backend_read(o, 0, got, BIG, NULL) == RC_OK && memcmp(got, want, BIG) == 0;
}

/* The pager is a child that reads what its parent has opened (pager/pager.h). */
TEST(a_child_reads_what_its_parent_has_opened)
{
    if (TEST_EXTRA_THREAD)
        test_skip("machine: the thread sanitizer allows no threads after a fork");
    struct err err = ERR_INIT;
    CLEANUP(fake_s3_stopp) struct fake_s3 *f = fake_s3_start();
    CLEANUP(backend_freep) struct backend *b = open_fake(f, "");
    CLEANUP(mem_freep) char *data = pattern(BIG);
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(write_big(b, "big", data, &err));
    CHECK_OK(backend_open(b, "big", &o, &err));
    CHECK(reads_it(o, data));
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)alarm(20);
        backend_after_fork(b);
        bool good = reads_it(o, data) && write_big(b, "of-the-child", data, NULL) == RC_OK;
        _exit(good ? 0 : 1);
    }
    CHECK(reads_it(o, data)); /* at the same time, on connections that it has not disturbed */
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(reads_it(o, data));
}
