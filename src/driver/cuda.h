/* The CUDA driver's functions for checkpoints, found at run time: nothing of CUDA is linked or
 * included, the few types are declared here after the driver's documentation (CUDA Driver API,
 * "CUDA Checkpointing").
 *
 * Source of the facts: the functions exist since driver 570 (CUDA 12.8); pairs of GPUs at a restore
 * since 580 (CUDA 13.0); every argument struct has 64 bytes, reserved ones zero.
 * Threads: a table is constant once it is open; the driver's functions are thread safe.
 */
#pragma once

#include "base/err.h"
#include "gpu/message.h"

#include <stdbool.h>
#include <stdint.h>

#define CUDA_VERSION_MAP 13000 /* the first that restores onto other GPUs */

enum cuda_code {
    CUDA_OK = 0,
    CUDA_INVALID_VALUE = 1,
    CUDA_OUT_OF_MEMORY = 2,
    CUDA_NOT_INITIALIZED = 3,
    CUDA_NO_DEVICE = 100,
    CUDA_INVALID_DEVICE = 101,
    CUDA_INVALID_CONTEXT = 201,
    CUDA_ILLEGAL_STATE = 401,
    CUDA_NOT_READY = 600,
    CUDA_NOT_PERMITTED = 800,
    CUDA_NOT_SUPPORTED = 801,
    CUDA_DRIVER_MISMATCH = 803,
    CUDA_UNKNOWN = 999,
};

struct cuda_lock_args {
    uint32_t timeout_ms;
    uint32_t reserved0;
    uint64_t reserved1[7];
};

struct cuda_uuid {
    unsigned char bytes[16];
};

struct cuda_pair {
    struct cuda_uuid from, to;
};

struct cuda_restore_args {
    struct cuda_pair *pairs;
    uint32_t n_pairs;
    unsigned char reserved[52];
};

struct cuda_plain_args {
    uint64_t reserved[8];
};

struct cuda {
    void *lib;
    int (*init)(unsigned flags);
    int (*version)(int *out);
    int (*error_name)(int code, const char **out);
    int (*lock)(int pid, struct cuda_lock_args *args);
    int (*checkpoint)(int pid, struct cuda_plain_args *args);
    int (*restore)(int pid, struct cuda_restore_args *args);
    int (*unlock)(int pid, struct cuda_plain_args *args);
    int (*state)(int pid, int *out);
    int (*thread)(int pid, int *out);
    int cuda;            /* its version, 12080 */
    const char *missing; /* the first function of a checkpoint that it lacks, or NULL */
};

/* Find the functions of a library.
 * find    looks a name up, as dlsym() does
 * errors  RC_UNSUPPORTED (no CUDA driver: its basic functions are not there) */
enum rc cuda_bind(struct cuda *c, void *lib, void *(*find)(void *lib, const char *name),
                  struct err *err);

/* Load libcuda.so.1.  out: stays loaded until the program ends.
 * errors  RC_NOT_FOUND (there is no driver), RC_UNSUPPORTED */
enum rc cuda_open(struct cuda *out, struct err *err);

/* "CUDA_ERROR_NOT_SUPPORTED" */
const char *cuda_name(const struct cuda *c, int code);

/* What a caller can make of a code. */
enum rc cuda_rc(int code);

/* "GPU-..." as the driver's 16 bytes.  text: valid, see gpu_uuid_valid() */
struct cuda_uuid cuda_uuid_of(const char *text);
