#include "driver/nvml.h"
#include "harness/test.h"

#include <stdlib.h>

#define A "GPU-a0000000-1111-2222-3333-444444444444"
#define B "GPU-b0000000-1111-2222-3333-444444444444"

TEST(every_gpu_with_what_a_restore_must_know)
{
    struct err err = ERR_INIT;
    struct gpu_facts f = {.cuda = 77};
    CHECK(setenv("CHREK_FAKE_GPUS", A ",Model X,81920,mig;" B ",Old GPU,1024", 1) == 0);
    CHECK(setenv("CHREK_FAKE_DRIVER", "571.2", 1) == 0);
    CHECK_OK(nvml_inventory(&f, &err));
    CHECK_STR(f.driver, "571.2");
    CHECK_INT(f.n_devices, 2);
    CHECK_STR(f.device[0].uuid, A);
    CHECK_STR(f.device[0].name, "Model X");
    CHECK(f.device[0].mig && f.device[0].memory_bytes == (uint64_t)81920 << 20);
    CHECK(!f.device[1].mig && f.device[1].minor == 1); /* a model that knows no MIG */
    CHECK_INT(f.cuda, 77);
}

TEST(a_gpu_without_uuid_is_none)
{
    struct err err = ERR_INIT;
    struct gpu_facts f = {.cuda = 0};
    CHECK(setenv("CHREK_FAKE_GPUS", "GPU-bad,Model X,81920;" A ",Model X,81920", 1) == 0);
    CHECK_OK(nvml_inventory(&f, &err));
    CHECK_INT(f.n_devices, 1);
    CHECK_STR(f.device[0].uuid, A);
}

TEST(what_the_library_refuses_is_said_in_its_words)
{
    struct err err = ERR_INIT;
    struct gpu_facts f = {.cuda = 0};
    CHECK(setenv("CHREK_FAKE_NVML_FAILS", "1", 1) == 0);
    CHECK_RC(nvml_inventory(&f, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "Driver Not Loaded"));
}
