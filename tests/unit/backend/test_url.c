#include "backend/url.h"
#include "base/mem.h"
#include "harness/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

TEST(parts_of_an_url_are_decoded)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_url_done) struct backend_url u = {.scheme = NULL};
    CHECK_OK(backend_url_parse("S3://bucket//a%2Fb/c/?endpoint=http://h:1&x=&y=%41%3d", &u, &err));
    CHECK_STR(u.scheme, "s3");
    CHECK_STR(u.host, "bucket");
    CHECK_STR(u.path, "a/b/c");
    CHECK_STR(backend_url_get(&u, "endpoint"), "http://h:1");
    CHECK_STR(backend_url_get(&u, "x"), "");
    CHECK_STR(backend_url_get(&u, "y"), "A=");
    CHECK(!backend_url_get(&u, "z"));
    static const char *const known[] = {"endpoint", "x", "y", NULL};
    CHECK_OK(backend_url_only(&u, known, &err));
    CHECK_RC(backend_url_only(&u, known + 1, &err), RC_INVALID);
    CHECK(strstr(err.msg, "'endpoint'") && strstr(err.msg, "x, y"));
}

TEST(what_is_no_url_is_a_path)
{
    static const char *const paths[] = {"/a", "a/b", "./a?b=c", "s3:/x", "://x", "%41", "."};
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        struct err err = ERR_INIT;
        CLEANUP(backend_url_done) struct backend_url u = {.scheme = NULL};
        CHECK_OK(backend_url_parse(paths[i], &u, &err));
        CHECK_STR(u.scheme, "file");
        CHECK_STR(u.path, paths[i]);
    }
}

TEST(bad_urls_are_refused)
{
    CLEANUP(mem_freep) char *longest = mem_asprintf("s3://%0*d", BACKEND_URL_MAX, 0);
    const char *const bad[] = {"",
                               "s3://a%",
                               "s3://a%4",
                               "s3://a%zz",
                               "s3://a%00b",
                               "s3://a\n",
                               "s3://a?x",
                               "s3://a?=x",
                               "s3://a?x=1&x=2",
                               "file://host/path",
                               "file:///path?x=1",
                               "file://",
                               longest};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct backend_url u = {.scheme = NULL};
        CHECK_RC(backend_url_parse(bad[i], &u, &err), RC_INVALID);
        CHECK(!u.scheme);
    }
}

TEST(a_path_opens_a_directory)
{
    struct err err = ERR_INIT;
    char path[128], url[160];
    struct stat st;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(backend_freep) struct backend *again = NULL;
    (void)snprintf(path, sizeof(path), "%s/new/store", test_dir());
    (void)snprintf(url, sizeof(url), "file://%s", path);
    CHECK_RC(backend_open_url(url, NULL, &b, &err), RC_NOT_FOUND);
    CHECK(!b && stat(path, &st) < 0);
    CHECK_OK(backend_open_url(path, &(struct backend_options){.create = true}, &b, &err));
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0777) == 0700);
    CHECK_OK(backend_put(b, "k", "x", 1, &err));
    CHECK_OK(backend_open_url(url, NULL, &again, &err));
    CHECK_RC(backend_put(again, "k", "x", 1, &err), RC_EXISTS);
}

TEST(a_scheme_without_a_driver_is_named)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CHECK_RC(backend_open_url("ftp://h/x?password=secret", NULL, &b, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "storage 'ftp://h/x': there is no driver for ftp://"));
    CHECK(!strstr(err.msg, "secret"));
}
