#include "base/compiler.h"
#include "driver/cuda.h"
#include "harness/test.h"

#include <dlfcn.h>
#include <stdlib.h>

static const char *hidden; /* a function that the library does not have */

static void *find_but_one(void *lib, const char *name)
{
    return hidden && strcmp(name, hidden) == 0 ? NULL : dlsym(lib, name);
}

static void *library(void)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW);
    CHECK(lib);
    return lib;
}

TEST(a_whole_driver_lacks_nothing)
{
    struct err err = ERR_INIT;
    struct cuda c;
    CHECK_OK(cuda_open(&c, &err));
    CHECK(!c.missing);
    CHECK_INT(c.cuda, 13000);
}

TEST(each_function_that_is_absent_is_named)
{
    static const char *const names[] = {
        "cuCheckpointProcessLock",     "cuCheckpointProcessCheckpoint",
        "cuCheckpointProcessRestore",  "cuCheckpointProcessUnlock",
        "cuCheckpointProcessGetState", "cuCheckpointProcessGetRestoreThreadId"};
    struct err err = ERR_INIT;
    struct cuda c;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        hidden = names[i];
        CHECK_OK(cuda_bind(&c, library(), find_but_one, &err));
        CHECK_STR(c.missing, names[i]);
    }
}

TEST(a_library_without_the_basic_functions_is_no_driver)
{
    static const char *const names[] = {"cuInit", "cuDriverGetVersion", "cuGetErrorName"};
    struct err err = ERR_INIT;
    struct cuda c;
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        hidden = names[i];
        CHECK_RC(cuda_bind(&c, library(), find_but_one, &err), RC_UNSUPPORTED);
        CHECK(strstr(err.msg, names[i]));
    }
}

TEST(codes_have_the_drivers_names_and_our_meaning)
{
    struct err err = ERR_INIT;
    struct cuda c;
    CHECK_OK(cuda_open(&c, &err));
    CHECK_STR(cuda_name(&c, CUDA_NOT_SUPPORTED), "CUDA_ERROR_NOT_SUPPORTED");
    CHECK(strstr(cuda_name(&c, 4242), "no name"));
    static const struct {
        int code;
        enum rc rc;
    } cases[] = {{CUDA_OK, RC_OK},
                 {CUDA_OUT_OF_MEMORY, RC_NO_SPACE},
                 {CUDA_ILLEGAL_STATE, RC_CONFLICT},
                 {CUDA_NOT_READY, RC_TIMEOUT},
                 {CUDA_NOT_PERMITTED, RC_DENIED},
                 {CUDA_NOT_SUPPORTED, RC_UNSUPPORTED},
                 {CUDA_NO_DEVICE, RC_UNSUPPORTED},
                 {CUDA_UNKNOWN, RC_IO}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        CHECK_INT(cuda_rc(cases[i].code), cases[i].rc);
}

TEST(a_uuid_becomes_16_bytes)
{
    struct cuda_uuid u = cuda_uuid_of("GPU-01234567-89ab-cdef-0123-456789ABCDEF");
    static const unsigned char want[16] = {0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef,
                                           0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef};
    CHECK(memcmp(u.bytes, want, sizeof(want)) == 0);
}
