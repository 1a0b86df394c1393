#include "base/compiler.h"
#include "driver/cuda.h"
#include "driver/explain.h"
#include "harness/test.h"

#include <unistd.h>

static void says(enum gpu_verb verb, int code, struct evidence e, const char *word)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    explain(verb, code, "CUDA_ERROR", &e, &text);
    if (!strstr(text.data, word))
        test_fail(__FILE__, __LINE__, "'%s' says nothing of '%s'", text.data, word);
}

TEST(not_supported_is_explained_by_what_is_there)
{
    says(GPU_CHECKPOINT, CUDA_NOT_SUPPORTED, (struct evidence){.mig = true}, "nvidia-smi -mig 0");
    says(GPU_CHECKPOINT, CUDA_NOT_SUPPORTED, (struct evidence){.mps = true},
         "CUDA_MPS_PIPE_DIRECTORY");
    says(GPU_CHECKPOINT, CUDA_NOT_SUPPORTED, (struct evidence){.vgpu = true}, "vGPU");
    says(GPU_CHECKPOINT, CUDA_NOT_SUPPORTED, (struct evidence){.nccl = true}, "NCCL_P2P_DISABLE=1");
    says(GPU_CHECKPOINT, CUDA_NOT_SUPPORTED, (struct evidence){.driver = 580}, "driver 610");
    says(GPU_CHECKPOINT, CUDA_NOT_SUPPORTED, (struct evidence){.driver = 610}, "cudaMallocManaged");
}

TEST(each_other_code_has_a_remedy_of_its_own)
{
    struct evidence none = {.mig = false}, nccl = {.nccl = true};
    says(GPU_CHECKPOINT, CUDA_OUT_OF_MEMORY, none, "container's limit");
    says(GPU_RESTORE, CUDA_OUT_OF_MEMORY, none, "another process");
    says(GPU_LOCK, CUDA_NOT_READY, none, "more time");
    says(GPU_LOCK, CUDA_NOT_READY, nccl, "collectives");
    says(GPU_LOCK, CUDA_ILLEGAL_STATE, none, "somebody else");
    says(GPU_LOCK, CUDA_NOT_PERMITTED, none, "root");
    says(GPU_RESTORE, CUDA_NO_DEVICE, none, "device map");
    says(GPU_RESTORE, CUDA_DRIVER_MISMATCH, none, "reboot");
    says(GPU_LOCK, CUDA_NOT_INITIALIZED, none, "does not use CUDA");
    says(GPU_CHECKPOINT, CUDA_UNKNOWN, none, "dmesg");
    says(GPU_CHECKPOINT, CUDA_UNKNOWN, nccl, "NCCL");
}

TEST(evidence_of_a_process)
{
    struct evidence e;
    struct gpu_facts f = {.driver = "580.1", .n_devices = 1};
    f.device[0] = (struct gpu_device){.name = "GRID X", .mig = true};
    evidence_read(getpid(), &f, &e);
    CHECK(e.mig && e.vgpu && e.driver == 580 && !e.mps);
    CHECK(e.comm[0] != '\0');
    evidence_read(999999999, &f, &e);
    CHECK(!e.nccl && e.comm[0] == '\0');
}
