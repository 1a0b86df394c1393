/* conform TEST: a storage that a real server keeps; TAP.  Run by tests/servers/run, one test at a
 * time.  CONFORM_URL names the storage; settings and secrets are as users give them. */
#include "backend/url.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"
#include "unit/backend/conformance.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BIG (((size_t)20 << 20) + 123) /* as in tests/servers/run */

static enum rc open_url(void *arg, struct backend **out, struct err *err)
{
    (void)arg;
    const char *url = getenv("CONFORM_URL");
    return url ? backend_open_url(url, &(struct backend_options){.env = getenv}, out, err)
               : err_set(err, RC_INVALID, "CONFORM_URL is not set");
}

static struct backend *open_it(void)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CHECK_OK(open_url(NULL, &b, &err));
    return b;
}

static char *pattern(void)
{
    char *p = mem_alloc(BIG);
    for (size_t i = 0; i < BIG; i++)
        p[i] = (char)(i * 167 + (i >> 9) + (i >> 20));
    return p;
}

static const struct conformance remote = {.open = open_url};

TEST(conforms)
{
    (void)alarm(240); /* thousands of requests, to servers that are not the fastest */
    conformance(&remote);
}

TEST(leaves_objects)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_it();
    CLEANUP(mem_freep) char *data = pattern();
    CLEANUP(backend_abortp) struct backend_upload *u = NULL;
    CHECK_OK(backend_put(b, "left/small", "hello", 5, &err));
    CHECK_OK(backend_begin(b, "left/big", &u, &err));
    CHECK_OK(backend_append(u, data, BIG, &err));
    CHECK_OK(backend_commit(u, &err));
}

TEST(reads_the_big_object)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_it();
    CLEANUP(mem_freep) char *data = pattern();
    CLEANUP(mem_freep) char *got = mem_alloc(BIG);
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CHECK_OK(backend_open(b, "left/big", &o, &err));
    CHECK_INT(o->size, BIG);
    CHECK_OK(backend_read(o, 0, got, BIG, &err));
    CHECK(memcmp(data, got, BIG) == 0);
}

TEST(is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_it();
    struct backend_object *o = NULL;
    const char *want = getenv("CONFORM_EXPECT");
    CHECK_STR(rc_name(backend_open(b, "absent", &o, &err)), want ? want : "");
    CHECK(!o);
}
