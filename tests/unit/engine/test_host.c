#include "base/compiler.h"
#include "base/mem.h"
#include "engine/host.h"
#include "harness/test.h"

#include <string.h>
#include <sys/utsname.h>

static char *doubt_of(const char *kernel)
{
    struct metadata m = {.kernel = mem_strdup(kernel)};
    char *doubt = host_doubt(&m);
    metadata_done(&m);
    return doubt;
}

TEST(only_a_newer_kernel_there_is_doubted)
{
    struct utsname u;
    CHECK(uname(&u) == 0);
    const char *const fine[] = {"2.6.32", "4.19.0-27-amd64", u.release, "strange", "", NULL};
    for (size_t i = 0; i < ARRAY_LEN(fine); i++)
        CHECK(doubt_of(fine[i]) == NULL);
    CLEANUP(mem_freep) char *minor = NULL;
    CLEANUP(mem_freep) char *newer = doubt_of("999.1.0-1-amd64");
    CHECK(newer && strstr(newer, "Linux 999.1.0-1-amd64") && strstr(newer, u.release));
    CLEANUP(mem_freep)
    char *same = mem_asprintf("%.*s.9999", (int)strcspn(u.release, "."), u.release);
    minor = doubt_of(same);
    CHECK(minor != NULL);
}

TEST(another_architecture_is_refused)
{
    struct err err = ERR_INIT;
    struct metadata m = {.arch = mem_strdup("pdp11")};
    CHECK_RC(host_accepts(&m, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "made on pdp11"));
    metadata_done(&m);
}
