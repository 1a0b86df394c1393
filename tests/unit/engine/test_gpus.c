/* The engine's part of GPU state, over chrek-gpu and the fake driver. */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "engine/doctor_priv.h"
#include "engine/gpus.h"
#include "harness/test.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAKE "GPU-00000000-1111-2222-3333-444444444444"

enum { USES_CUDA, LOADS_CUDA, HOLDS_DEVICE };

static void name_program(void)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    CHECK(n > 0);
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/../src/chrek-gpu", self);
    CHECK(setenv("CHREK_GPU", path, 1) == 0);
}

static void hold_device(void)
{
    char path[] = "/dev/nvidia-test-XXXXXX";
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0 || unlink(path) < 0)
        _exit(3);
}

static _Noreturn void play(unsigned kinds, int ready)
{
    if (kinds & (1U << USES_CUDA | 1U << LOADS_CUDA)) {
        void *lib = dlopen("libcuda.so.1", RTLD_NOW);
        int (*init)(unsigned) = lib ? dlsym(lib, "cuInit") : NULL;
        if (!init || (kinds & 1U << USES_CUDA && init(0)))
            _exit(3);
    }
    if (kinds & 1U << HOLDS_DEVICE)
        hold_device();
    (void)!write(ready, "x", 1);
    for (;;)
        (void)pause();
}

static struct proc_facts start(unsigned kinds)
{
    int ready[2];
    char c;
    struct err err = ERR_INIT;
    struct proc_facts facts;
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        play(kinds, ready[1]);
    }
    (void)close(ready[1]);
    CHECK(read(ready[0], &c, 1) == 1);
    (void)close(ready[0]);
    CHECK_OK(proc_facts_read(pid, &facts, &err));
    return facts;
}

static void stop(const struct proc_facts *p)
{
    (void)kill(p->pid, SIGKILL);
    (void)waitpid(p->pid, NULL, 0);
}

TEST(a_tree_without_cuda_needs_no_helper)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct proc_facts p = start(0);
    CHECK(setenv("CHREK_GPU", "/no/such/program", 1) == 0);
    CHECK_OK(gpus_find(&p, 1, &g, &err));
    CHECK(g.n == 0 && !g.helper);
    stop(&p);
}

TEST(a_library_that_is_only_loaded_is_no_state)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct proc_facts p = start(1U << LOADS_CUDA);
    CHECK(setenv("CHREK_GPU", "/no/such/program", 1) == 0);
    CHECK_OK(gpus_find(&p, 1, &g, &err));
    CHECK_INT(g.n, 0);
    name_program();
    CHECK_OK(gpus_find(&p, 1, &g, &err));
    CHECK(g.n == 0 && !g.helper);
    stop(&p);
}

TEST(a_device_in_use_without_a_helper_is_refused)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct proc_facts p = start(1U << USES_CUDA | 1U << HOLDS_DEVICE);
    CHECK(setenv("CHREK_GPU", "/no/such/program", 1) == 0);
    CHECK_RC(gpus_find(&p, 1, &g, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "$CHREK_GPU"));
    stop(&p);
}

TEST(a_device_without_cuda_state_is_refused)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct proc_facts p = start(1U << LOADS_CUDA | 1U << HOLDS_DEVICE);
    name_program();
    CHECK_RC(gpus_find(&p, 1, &g, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "nvmlShutdown") && strstr(err.msg, "/dev/nvidia-test-"));
    stop(&p);
}

TEST(what_the_driver_leaves_open_is_refused_and_all_run_again)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct engine e = {.criu = NULL};
    struct proc_facts p = start(1U << USES_CUDA | 1U << HOLDS_DEVICE);
    name_program();
    CHECK_OK(gpus_find(&p, 1, &g, &err));
    CHECK_OK(gpus_lock(&g, 0, &err));
    CHECK_RC(gpus_save(&g, 0, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "has left a GPU"));
    gpus_release(&g, &e);
    CHECK(!g.touched);
    gpus_done(&g);
    CHECK_OK(gpus_find(&p, 1, &g, &err)); /* it runs */
    CHECK_INT(g.n, 1);
    gpus_done(&g);
    stop(&p);
}

TEST(there_and_back)
{
    struct err err = ERR_INIT;
    struct gpus g, back;
    CLEANUP(metadata_done) struct metadata m = {.ours = true};
    struct proc_facts p[2] = {start(0), start(1U << USES_CUDA)};
    name_program();
    CHECK_OK(gpus_find(p, 2, &g, &err));
    CHECK(g.n == 1 && g.pid[0] == p[1].pid);
    CHECK_OK(gpus_lock(&g, clock_now() + 10 * CLOCK_S, &err));
    CHECK_OK(gpus_save(&g, clock_now() + 10 * CLOCK_S, &err));
    gpus_describe(&g, &m);
    gpus_describe(&g, &m); /* once */
    CHECK(m.n_gpu_pids == 1 && m.gpu_pids[0] == p[1].inner);
    CHECK_STR(m.gpu->device[0].uuid, FAKE);
    gpus_done(&g);
    CHECK_OK(gpus_accept(&m, &back, &err));
    CHECK_OK(gpus_restore(&back, &m, getpid(), 0, &err));
    CHECK_OK(gpus_unlock(&back, 0, &err));
    gpus_done(&back);
    m.gpu_pids[0] = 4194303; /* nobody */
    CHECK_OK(gpus_accept(&m, &back, &err));
    CHECK_RC(gpus_restore(&back, &m, getpid(), 0, &err), RC_NOT_FOUND);
    gpus_done(&back);
    stop(&p[0]);
    stop(&p[1]);
}

TEST(a_locked_process_is_somebody_elses)
{
    struct err err = ERR_INIT;
    struct gpus g, other;
    struct proc_facts p = start(1U << USES_CUDA);
    name_program();
    CHECK_OK(gpus_find(&p, 1, &g, &err));
    CHECK_OK(gpus_lock(&g, 0, &err));
    CHECK_RC(gpus_find(&p, 1, &other, &err), RC_CONFLICT);
    CHECK(strstr(err.msg, "chrek-gpu release"));
    CHECK_OK(gpus_save(&g, 0, &err)); /* by its user, as far as `other` can tell */
    CHECK_OK(gpus_find(&p, 1, &other, &err));
    CHECK_INT(other.n, 0);
    CHECK_OK(gpus_resume(&g, 0, &err));
    gpus_done(&g);
    stop(&p);
}

static char warning[600];

static void on_warning(void *arg, const char *text)
{
    (void)arg;
    (void)snprintf(warning, sizeof(warning), "%s", text);
}

TEST(what_cannot_be_brought_back_is_warned_of)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct engine e = {.warn = on_warning};
    struct proc_facts p = start(1U << USES_CUDA);
    name_program();
    CHECK(setenv("CHREK_FAKE_CUDA", "unlock=fail:999", 1) == 0);
    CHECK_OK(gpus_find(&p, 1, &g, &err));
    gpus_release(&g, &e); /* nothing was done yet */
    CHECK_STR(warning, "");
    CHECK_OK(gpus_lock(&g, 0, &err));
    gpus_release(&g, &e);
    CHECK(strstr(warning, "chrek-gpu release"));
    gpus_done(&g);
    stop(&p);
}

TEST(a_checkpoint_without_gpu_state_is_accepted_anywhere)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct metadata m = {.ours = true};
    CHECK(setenv("CHREK_GPU", "/no/such/program", 1) == 0);
    CHECK_OK(gpus_accept(&m, &g, &err));
    CHECK(!g.helper);
}

TEST(another_gpu_is_not_accepted)
{
    struct err err = ERR_INIT;
    struct gpus g;
    struct gpu_facts facts = {.driver = "580.65.06", .n_devices = 1};
    struct metadata m = {.ours = true, .gpu = &facts};
    facts.device[0] = (struct gpu_device){.uuid = FAKE, .name = "Model X"};
    name_program();
    CHECK_RC(gpus_accept(&m, &g, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, "Model X") && strstr(err.msg, "Fake GPU"));
}

TEST(the_devices_of_a_process_and_their_numbers)
{
    uint32_t minors[2];
    size_t n = 0;
    struct proc_facts p = start(1U << HOLDS_DEVICE);
    CLEANUP(mem_freep) char *device = gpus_device_of(p.pid, minors, &n, 2);
    CHECK(device && strstr(device, "descriptor "));
    CHECK_INT(n, 0); /* '-test-...' is no number */
    stop(&p);
    CHECK(!gpus_device_of(getpid(), minors, &n, 2));
}

TEST(the_doctor_tells_what_the_driver_can_do)
{
    static const struct {
        const char *variable, *value, *says;
        enum doctor_level level;
    } cases[] = {{"CHREK_FAKE_DRIVER", "580.1", "onto others", DOCTOR_OK},
                 {"CHREK_FAKE_DRIVER", "570.1", "570.1 saves", DOCTOR_OK},
                 {"CHREK_FAKE_GPUS", FAKE ",Fake GPU,8192,mig", "MIG", DOCTOR_WARN},
                 {"CHREK_FAKE_NVML_FAILS", "1", "Driver Not Loaded", DOCTOR_WARN},
                 {"CHREK_GPU", "/no/such/program", "$CHREK_GPU", DOCTOR_WARN}};
    name_program();
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
        CHECK(setenv(cases[i].variable, cases[i].value, 1) == 0);
        doctor_check_gpu(&r, clock_now() + 20 * CLOCK_S);
        CHECK_INT(r.n, 1);
        CHECK_INT(r.list[0].level, cases[i].level);
        CHECK_STR(r.list[0].id, "gpu-driver");
        CHECK(strstr(r.list[0].what, cases[i].says));
    }
}
