// SPDX-License-Identifier: GPL-2.0-only
/* A plugin of CRIU: what CUDA keeps on a GPU goes into the memory of its process before CRIU saves
 * that, and back when CRIU has restored it.  The work is chrek-gpu's, asked over a socket pair.
 *
 * CRIU calls
 *   PAUSE_DEVICES        for each process, before it is frozen: lock
 *   CHECKPOINT_DEVICES   for each process, all of them frozen: GPU memory into memory
 *   RESUME_DEVICES_LATE  at a restore, for each process, all of them stopped: and back
 *   exit                 at the end: after a dump that leaves processes running, or has failed, they
 *                        get their GPU back
 *
 * The driver has a thread in the process do the work, so that thread is let go and stopped again;
 * only CRIU's main thread, which these hooks run in, may do that.
 *
 * The declarations are those of CRIU's documentation of plugins, version 0.2 of the interface: the
 * oldest with these hooks, accepted by every CRIU since 4.0.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))
#define ANSWER_MAX 65536
#define ANSWER_MS (30 * 60 * 1000) /* CRIU has a limit of its own, --timeout */
#define SIGSET_BYTES 8
#define PIDS_MAX 512

enum { HOOK_RESUME_DEVICES_LATE = 9, HOOK_PAUSE_DEVICES = 10, HOOK_CHECKPOINT_DEVICES = 11, HOOKS = 12 };
enum { STAGE_DUMP, STAGE_PRE_DUMP, STAGE_RESTORE };
enum { LEVEL_ERROR = 1, LEVEL_INFO = 3 };

struct descriptor {
    const char *name;
    int (*init)(int stage);
    void (*exit)(int stage, int ret);
    unsigned version, max_hooks;
    void *hooks[HOOKS];
};

extern struct descriptor CR_PLUGIN_DESC;

/* Of CRIU; an old one may lack them. */
__attribute__((weak)) int add_inventory_plugin(const char *name);
__attribute__((weak)) bool check_and_remove_inventory_plugin(const char *name, size_t n);
__attribute__((weak)) void print_on_level(unsigned level, const char *format, ...);

static bool enabled, recorded;
static int helper = -1;
static int paused[PIDS_MAX];
static size_t n_paused;

static void say(unsigned level, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void say(unsigned level, const char *format, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, format);
    (void)vsnprintf(text, sizeof(text), format, ap);
    va_end(ap);
    if (print_on_level)
        print_on_level(level, "cuda_plugin: %s\n", text);
    else
        (void)fprintf(stderr, "cuda_plugin: %s\n", text);
}

/* ---- chrek-gpu ---- */

/* $CHREK_GPU, else where both are installed: PREFIX/lib/criu/cuda_plugin.so, PREFIX/bin/chrek-gpu. */
static void program_path(char out[PATH_MAX])
{
    Dl_info info;
    const char *asked = getenv("CHREK_GPU");
    (void)snprintf(out, PATH_MAX, "%s", asked && *asked ? asked : "/usr/local/bin/chrek-gpu");
    if ((asked && *asked) || !dladdr(&CR_PLUGIN_DESC, &info) || !info.dli_fname)
        return;
    const char *slash = strrchr(info.dli_fname, '/');
    char beside[PATH_MAX];
    if (slash && snprintf(beside, sizeof(beside), "%.*s/../../bin/chrek-gpu",
                          (int)(slash - info.dli_fname), info.dli_fname) < (int)sizeof(beside) &&
        access(beside, X_OK) == 0)
        memcpy(out, beside, strlen(beside) + 1);
}

/* Forked twice: CRIU counts its children, and must not be told that this one has ended. */
static void become_helper(const char *program, int socket)
{
    char *const argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t) "serve", NULL};
    sigset_t none;
    pid_t pid = fork();
    if (pid != 0)
        _exit(pid < 0);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    if (dup2(socket, STDIN_FILENO) < 0)
        _exit(127);
    (void)syscall(SYS_close_range, 3U, ~0U, 0U);
    (void)execv(program, argv);
    _exit(127);
}

static int start_helper(void)
{
    int sv[2], status = -1;
    char program[PATH_MAX];
    sigset_t child, before;
    if (helper >= 0)
        return 0;
    program_path(program);
    if (access(program, X_OK) < 0 || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0) {
        say(LEVEL_ERROR, "cannot start '%s': %s (install chrek, or set CHREK_GPU)", program,
            strerror(errno));
        return -1;
    }
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &child, &before);
    pid_t pid = fork();
    if (pid == 0)
        become_helper(program, sv[1]);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    (void)sigprocmask(SIG_SETMASK, &before, NULL);
    (void)close(sv[1]);
    if (status != 0) {
        say(LEVEL_ERROR, "cannot start a process for chrek-gpu");
        (void)close(sv[0]);
        return -1;
    }
    helper = sv[0];
    return 0;
}

/* Ask about one process.  Returns 0 and the answer's text, or -1 with the reason said. */
static int ask(const char *verb, int pid, char answer[ANSWER_MAX])
{
    char request[64];
    struct pollfd p = {.fd = helper, .events = POLLIN};
    int len = snprintf(request, sizeof(request), "%s pids=%d", verb, pid);
    ssize_t n = -1;
    if (send(helper, request, (size_t)len, MSG_NOSIGNAL) > 0 && poll(&p, 1, ANSWER_MS) > 0)
        n = recv(helper, answer, ANSWER_MAX - 1, 0);
    answer[n > 0 ? n : 0] = '\0';
    if (strncmp(answer, "ok\n", 3) == 0)
        return 0;
    int code = 0, at = 0;
    if (sscanf(answer, "error %d %n", &code, &at) == 1 && at)
        say(LEVEL_ERROR, "%s of process %d: %.*s", verb, pid, (int)strcspn(answer + at, "\n"),
            answer + at);
    else
        say(LEVEL_ERROR, "%s of process %d: chrek-gpu does not answer", verb, pid);
    return -1;
}

/* What the driver knows of a process: its thread, or 0 where it does not use CUDA; -1 on failure. */
static int find(int pid, char state[16])
{
    static const char library[] = "/libcuda.so";
    char path[64], line[512], *answer;
    bool maps = false;
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", pid);
    FILE *f = fopen(path, "re");
    while (f && !maps && fgets(line, sizeof(line), f))
        maps = strstr(line, library) != NULL;
    if (f)
        (void)fclose(f);
    if (!maps)
        return 0; /* nothing is started for it */
    int thread = -1, who = 0;
    answer = malloc(ANSWER_MAX);
    if (answer && start_helper() == 0 && ask("find", pid, answer) == 0) {
        const char *found = strstr(answer, "\nprocess ");
        thread = 0;
        if (found && sscanf(found, " process %d %15s %d", &who, state, &thread) != 3)
            thread = -1;
    }
    free(answer);
    return thread;
}

/* ---- the driver's thread ---- */

/* A thread that CRIU holds; `held` is false when it does not hold it (any more). */
struct held {
    int thread;
    bool held;
    uint64_t mask;
};

static int let_go(struct held *h)
{
    uint64_t all_but_trap = ~(UINT64_C(1) << (SIGTRAP - 1));
    h->held = ptrace(PTRACE_GETSIGMASK, h->thread, SIGSET_BYTES, &h->mask) == 0;
    if (!h->held)
        return errno == ESRCH ? 0 : -1; /* it runs */
    /* CRIU has switched its seccomp filter off; while it runs the filter holds. */
    if (ptrace(PTRACE_SETSIGMASK, h->thread, SIGSET_BYTES, &all_but_trap) < 0 ||
        ptrace(PTRACE_SETOPTIONS, h->thread, NULL, 0) < 0 ||
        ptrace(PTRACE_CONT, h->thread, NULL, 0) < 0) {
        say(LEVEL_ERROR, "thread %d cannot be let go: %s", h->thread, strerror(errno));
        return -1;
    }
    return 0;
}

static int hold_again(const struct held *h)
{
    int status = 0;
    uintptr_t options = PTRACE_O_TRACESYSGOOD;
    if (!h->held)
        return 0;
    if (ptrace(PTRACE_INTERRUPT, h->thread, NULL, 0) < 0 ||
        waitpid(h->thread, &status, __WALL) != h->thread || !WIFSTOPPED(status)) {
        say(LEVEL_ERROR, "thread %d cannot be stopped again", h->thread);
        return -1;
    }
    if (ptrace(PTRACE_SETOPTIONS, h->thread, NULL, options | PTRACE_O_SUSPEND_SECCOMP) < 0 &&
        ptrace(PTRACE_SETOPTIONS, h->thread, NULL, options) < 0)
        return -1;
    return ptrace(PTRACE_SETSIGMASK, h->thread, SIGSET_BYTES, &h->mask) < 0 ? -1 : 0;
}

/* One or two requests, with the thread running meanwhile. */
static int ask_with_thread(int pid, int thread, const char *first, const char *second)
{
    struct held h = {.thread = thread};
    char *answer = malloc(ANSWER_MAX);
    int rc = answer ? let_go(&h) : -1;
    if (rc == 0) {
        rc = ask(first, pid, answer);
        if (rc == 0 && second)
            rc = ask(second, pid, answer);
        if (hold_again(&h) < 0)
            rc = -1;
    }
    free(answer);
    return rc;
}

/* ---- hooks ---- */

static bool is_paused(int pid)
{
    for (size_t i = 0; i < n_paused; i++)
        if (paused[i] == pid)
            return true;
    return false;
}

static int pause_devices(int pid)
{
    char state[16] = "";
    if (!enabled)
        return -ENOTSUP;
    int thread = find(pid, state);
    if (thread == 0)
        return -ENOTSUP;
    if (thread < 0 || n_paused == PIDS_MAX)
        return -1;
    if (!recorded && add_inventory_plugin && add_inventory_plugin(CR_PLUGIN_DESC.name) != 0)
        return -1;
    recorded = true; /* so that a restore asks for this plugin */
    if (strcmp(state, "running") != 0) {
        say(LEVEL_INFO, "process %d is '%s' and stays so", pid, state);
        return 0;
    }
    char *answer = malloc(ANSWER_MAX);
    int rc = answer ? ask("lock timeout=60000", pid, answer) : -1;
    free(answer);
    if (rc == 0)
        paused[n_paused++] = pid;
    return rc;
}

static int checkpoint_devices(int pid)
{
    char state[16] = "";
    if (!enabled || !is_paused(pid))
        return -ENOTSUP;
    int thread = find(pid, state);
    return thread > 0 ? ask_with_thread(pid, thread, "checkpoint", NULL) : -1;
}

static int resume_devices_late(int pid)
{
    char state[16] = "";
    if (!enabled)
        return -ENOTSUP;
    int thread = find(pid, state);
    if (thread == 0)
        return -ENOTSUP;
    if (thread < 0)
        return -1;
    if (strcmp(state, "checkpointed") == 0)
        return ask_with_thread(pid, thread, "restore", "unlock");
    return 0;
}

static int init(int stage)
{
    enabled = stage != STAGE_PRE_DUMP;
    if (stage == STAGE_RESTORE && check_and_remove_inventory_plugin)
        enabled = check_and_remove_inventory_plugin(CR_PLUGIN_DESC.name, strlen(CR_PLUGIN_DESC.name));
    return 0;
}

/* CRIU lets processes go, or kills them, only after this.  So chrek-gpu is told to bring back what
 * lives then; it waits for that by itself. */
static void leave(int stage, int ret)
{
    char request[16 + 12 * PIDS_MAX];
    size_t len = (size_t)snprintf(request, sizeof(request), "release pids=");
    (void)ret;
    for (size_t i = 0; i < n_paused; i++)
        len += (size_t)snprintf(request + len, sizeof(request) - len, "%s%d", i ? "," : "", paused[i]);
    if (stage == STAGE_DUMP && n_paused && helper >= 0 &&
        send(helper, request, len, MSG_NOSIGNAL) < 0)
        say(LEVEL_ERROR, "processes may stand still: chrek-gpu has ended; try chrek-gpu release");
    if (helper >= 0)
        (void)close(helper);
    helper = -1;
    n_paused = 0;
}

EXPORT struct descriptor CR_PLUGIN_DESC = {
    .name = "cuda_plugin",
    .init = init,
    .exit = leave,
    .version = 2U << 8, /* 0.2.0 */
    .max_hooks = HOOKS,
    .hooks = {[HOOK_RESUME_DEVICES_LATE] = (void *)resume_devices_late,
              [HOOK_PAUSE_DEVICES] = (void *)pause_devices,
              [HOOK_CHECKPOINT_DEVICES] = (void *)checkpoint_devices},
};
