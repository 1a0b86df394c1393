/* What this machine's GPUs and their driver can do for a checkpoint. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "engine/doctor_priv.h"
#include "gpu/helper.h"

#include <unistd.h>

bool doctor_machine_has_gpu(void)
{
    return access("/dev/nvidiactl", F_OK) == 0 || access("/proc/driver/nvidia", F_OK) == 0;
}

static void judge(const struct gpu_facts *f, struct doctor_report *r)
{
    bool mig = false;
    for (size_t i = 0; i < f->n_devices; i++)
        mig = mig || f->device[i].mig;
    if (!f->can_checkpoint)
        doctor_add(r, DOCTOR_WARN, "gpu-driver", 0, "it cannot save the state of a GPU",
                   "Install driver 570 or newer.", "the GPU driver is %s", f->driver);
    else if (mig)
        doctor_add(r, DOCTOR_WARN, "gpu-driver", 0,
                   "the driver cannot save what runs on a part of a GPU",
                   "Switch MIG off: nvidia-smi -mig 0.", "a GPU is in MIG mode");
    else
        doctor_add(r, DOCTOR_OK, "gpu-driver", 0, NULL, NULL,
                   "GPU driver %s saves the state of %zu GPU(s)%s", f->driver, f->n_devices,
                   f->can_map ? " and restores it onto others of the same model" : "");
}

void doctor_check_gpu(struct doctor_report *r, uint64_t deadline)
{
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    CLEANUP(mem_freep) struct gpu_reply *reply = mem_zalloc(sizeof(*reply));
    CLEANUP(mem_freep) char *program = NULL;
    CLEANUP(gpu_helper_freep) struct gpu_helper *h = NULL;
    struct err err = ERR_INIT;
    q->verb = GPU_HELLO;
    enum rc rc = gpu_helper_find(&program, &err);
    if (!rc)
        rc = gpu_helper_open(program, &h, &err);
    if (!rc)
        rc = gpu_helper_call(h, q, deadline, reply, &err);
    if (rc)
        doctor_add(r, DOCTOR_WARN, "gpu-driver", 0, "programs that use a GPU cannot be saved", NULL,
                   "there is a GPU, but: %s", err.msg);
    else
        judge(&reply->facts, r);
}
