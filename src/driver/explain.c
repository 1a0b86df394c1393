#include "driver/explain.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "driver/cuda.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX ((size_t)16 << 20)

static const char nccl_remedy[] =
    "NCCL is loaded: memory that it shares between GPUs cannot be saved; start with "
    "NCCL_CUMEM_ENABLE=0 NCCL_P2P_DISABLE=1 NCCL_NVLS_ENABLE=0, or tear communicators down first";

static void add_file(pid_t pid, const char *name, struct buf *out)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
    (void)!fs_read_file(AT_FDCWD, path, TEXT_MAX, out, NULL);
}

static bool contains(const struct buf *text, const char *what)
{
    return text->len && memmem(text->data, text->len, what, strlen(what)) != NULL;
}

void evidence_read(pid_t pid, const struct gpu_facts *facts, struct evidence *out)
{
    CLEANUP(buf_done) struct buf maps = BUF_INIT;
    CLEANUP(buf_done) struct buf env = BUF_INIT;
    CLEANUP(buf_done) struct buf comm = BUF_INIT;
    struct evidence e = {.driver = gpu_driver_major(facts)};
    add_file(pid, "maps", &maps);
    add_file(pid, "environ", &env);
    add_file(pid, "comm", &comm);
    e.nccl = contains(&maps, "libnccl.so") || contains(&env, "NCCL_");
    e.mps = contains(&env, "CUDA_MPS_PIPE_DIRECTORY=") || contains(&maps, "/nvidia-mps/");
    for (size_t i = 0; i < facts->n_devices; i++) {
        e.mig = e.mig || facts->device[i].mig;
        e.vgpu = e.vgpu || strncmp(facts->device[i].name, "GRID ", 5) == 0 ||
                 strstr(facts->device[i].name, "vGPU");
    }
    (void)snprintf(e.comm, sizeof(e.comm), "%.*s", (int)strcspn(buf_str(&comm), "\n"),
                   buf_str(&comm));
    *out = e;
}

static const char *why_unsupported(const struct evidence *e)
{
    if (e->mig)
        return "a GPU is in MIG mode, which the driver cannot save; switch it off: nvidia-smi -mig "
               "0";
    if (e->mps)
        return "it is a client of MPS, which the driver cannot save; start it without "
               "CUDA_MPS_PIPE_DIRECTORY, with no nvidia-cuda-mps-control running";
    if (e->vgpu)
        return "a virtual GPU (vGPU) cannot be saved; use a whole one";
    if (e->nccl)
        return nccl_remedy;
    if (e->driver && e->driver < 610)
        return "probably managed memory (cudaMallocManaged, UVM), or memory shared between "
               "processes (CUDA IPC, which driver 610 can save); use plain device memory";
    return "probably managed memory (cudaMallocManaged, UVM) or exported memory; use plain device "
           "memory";
}

static const char *why(enum gpu_verb verb, int code, const struct evidence *e)
{
    switch (code) {
    case CUDA_NOT_SUPPORTED:
        return why_unsupported(e);
    case CUDA_OUT_OF_MEMORY:
        if (verb == GPU_RESTORE || verb == GPU_RELEASE)
            return "another process has taken the GPU's memory; end it (nvidia-smi shows which)";
        return "the machine has not enough memory for what lies on the GPU; free some, or raise "
               "the container's limit by the GPU memory in use";
    case CUDA_NOT_READY:
        return e->nccl ? "work on the GPU does not end, which NCCL's waiting kernels never do; "
                         "let the program finish its collectives first"
                       : "work on the GPU did not end in time; let the program come to rest first, "
                         "or give more time";
    case CUDA_ILLEGAL_STATE:
        return "somebody else is saving or restoring this process";
    case CUDA_NOT_PERMITTED:
        return "only root and the owner of a process may do that";
    case CUDA_NO_DEVICE:
    case CUDA_INVALID_DEVICE:
        return "the GPU that it was on is not here, nor in the device map";
    case CUDA_DRIVER_MISMATCH:
        return "the driver's library and kernel module are of different versions; reboot, or load "
               "the new module";
    case CUDA_NOT_INITIALIZED:
        return "it does not use CUDA, or has just begun to";
    default:
        return e->nccl ? nccl_remedy : "the driver says no more; dmesg may (look for NVRM, Xid)";
    }
}

void explain(enum gpu_verb verb, int code, const char *name, const struct evidence *e,
             struct buf *out)
{
    buf_addf(out, "%s of %s: %s: %s", gpu_verb_name(verb), e->comm[0] ? e->comm : "a process", name,
             why(verb, code, e));
}
