/* Preloaded into CRIU by launch.c: have a tree leave its memory behind when
 * CRIU lets it go.
 *
 * To copy memory takes as long as it takes, and the tree should not stand still
 * for it.  So where CHREK_HIDDEN_FD ends in ",keep", each process
 * of which memory was hidden (pages.c) gets a *keeper*, while CRIU has it
 * stopped and is about to say that it has dumped all ("post-dump"): a process
 * with the same memory, by clone(), copied on write, which never runs.  The
 * memory is not shared, also if the tree is to end: of threads that are killed
 * the kernel clears the IDs in memory that somebody else has, too.  The caller
 * takes the keeper over, reads from it when the tree goes on or is no more, and
 * ends it.
 *
 *   process  --clone-->  middle  --clone, sharing memory-->  keeper
 *
 * The middle ends and is waited for at once, in the process's name: the process
 * has no child that it does not know of, and the keeper belongs to whoever
 * takes in orphans, outside of the tree: a process of it that does
 * (PR_SET_CHILD_SUBREAPER) does not meanwhile.  The keeper closes all descriptors and leaves
 * session and process group, so that neither a pipe nor a signal to a group finds it; all signals
 * are blocked; and if it ever ran, the next thing it would do is to end.
 *
 * All or nothing: if one keeper cannot be made, there are none, and the caller
 * copies with the tree stopped.  x86-64 only; elsewhere nothing is changed.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

typedef ssize_t write_fn(int, const void *, size_t);

/* As pages.c writes it; with a keeper the other fields are 0. */
struct record {
    int32_t pid;
    int32_t keeper;
    uint64_t start, end;
};

static ssize_t real_write(int fd, const void *data, size_t len)
{
    static write_fn *libc_write;
    if (!libc_write)
        *(void **)&libc_write = dlsym(RTLD_NEXT, "write");
    return libc_write(fd, data, len);
}

#ifdef __x86_64__

#define CODE_64 0x33U
#define PAGE 4096U
#define SUSPEND_SECCOMP (1 << 21)        /* PTRACE_O_SUSPEND_SECCOMP */
#define SIGSET_BYTES ((void *)(size_t)8) /* of the kernel's signal set */

struct task {
    pid_t pid;
    uint64_t instruction; /* `syscall` */
    struct user_regs_struct regs;
    uint64_t mask;
};

static int wait_for(pid_t pid, int *status)
{
    pid_t got;
    do
        got = waitpid(pid, status, __WALL);
    while (got < 0 && errno == EINTR);
    return got == pid ? 0 : -1;
}

/* To the begin or the end of a system call; born: of a clone(). */
static int run_to_call(pid_t pid, pid_t *born)
{
    for (long sig = 0;;) {
        int status = 0;
        unsigned long message = 0;
        if (ptrace(PTRACE_SYSCALL, pid, NULL, (void *)sig) < 0 || wait_for(pid, &status) < 0 ||
            !WIFSTOPPED(status))
            return -1;
        sig = 0;
        if (WSTOPSIG(status) == (SIGTRAP | 0x80))
            return 0;
        if (status >> 16 == PTRACE_EVENT_CLONE && born &&
            ptrace(PTRACE_GETEVENTMSG, pid, NULL, &message) == 0)
            *born = (pid_t)message;
        if (status >> 16)
            continue;
        sig = WSTOPSIG(status);
        if (sig == SIGSEGV || sig == SIGBUS || sig == SIGILL || sig == SIGSYS)
            return -1;
    }
}

static long call(const struct task *t, pid_t *born, long number, uint64_t a, uint64_t b, uint64_t c,
                 uint64_t d)
{
    struct user_regs_struct regs = t->regs;
    regs.rip = t->instruction;
    regs.rax = (unsigned long long)number;
    regs.orig_rax = ULLONG_MAX; /* no call is to be restarted */
    regs.rdi = a;
    regs.rsi = b;
    regs.rdx = c;
    regs.r10 = d;
    regs.r8 = regs.r9 = 0;
    if (ptrace(PTRACE_SETREGS, t->pid, NULL, &regs) < 0 || run_to_call(t->pid, born) < 0 ||
        run_to_call(t->pid, born) < 0 || ptrace(PTRACE_GETREGS, t->pid, NULL, &regs) < 0)
        return -1;
    return (long)regs.rax;
}

static uint64_t find_instruction(pid_t pid)
{
    char path[48], *line = NULL;
    size_t room = 0;
    uint64_t found = 0;
    uint8_t code[16384];
    (void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && !found && getline(&line, &room, f) > 0) {
        unsigned long long start, end;
        if (!strstr(line, "[vdso]") || sscanf(line, "%llx-%llx", &start, &end) != 2)
            continue;
        size_t len = end - start < sizeof(code) ? end - start : sizeof(code);
        struct iovec to = {code, len}, from = {(void *)(uintptr_t)start, len};
        if (process_vm_readv(pid, &to, 1, &from, 1, 0) != (ssize_t)len)
            continue;
        const uint8_t *at = memmem(code, len, "\x0f\x05", 2);
        found = at ? start + (uint64_t)(at - code) : 0;
    }
    free(line);
    if (f)
        (void)fclose(f);
    return found;
}

static void end_task(pid_t pid)
{
    int status;
    if (pid <= 0)
        return;
    (void)kill(pid, SIGKILL);
    while (wait_for(pid, &status) == 0 && WIFSTOPPED(status))
        continue;
}

/* A child's first stop, before it has done anything. */
static int is_born(pid_t pid)
{
    int status = 0;
    return pid > 0 && wait_for(pid, &status) == 0 && WIFSTOPPED(status);
}

/* What a keeper does before it falls asleep for good. */
static int settle(const struct task *middle, pid_t pid)
{
    struct task t = {.pid = pid, .instruction = middle->instruction, .regs = middle->regs};
    if (call(&t, NULL, SYS_close_range, 0, UINT_MAX, 0, 0) != 0 ||
        call(&t, NULL, SYS_setsid, 0, 0, 0, 0) < 0)
        return -1;
    t.regs.rip = t.instruction;
    t.regs.rax = SYS_exit_group;
    t.regs.orig_rax = ULLONG_MAX;
    t.regs.rdi = 0;
    return ptrace(PTRACE_SETREGS, pid, NULL, &t.regs) < 0 || kill(pid, SIGSTOP) < 0 ||
                   ptrace(PTRACE_DETACH, pid, NULL, NULL) < 0
               ? -1
               : 0;
}

/* A child of a process has its options; besides, it must not go on, as a second one of that, when
 * CRIU is killed now. */
static int ends_with_us(pid_t pid)
{
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    return ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(options | SUSPEND_SECCOMP)) == 0 ||
           ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)options) == 0;
}

static int hidden_fd(void)
{
    const char *text = getenv("CHREK_HIDDEN_FD");
    return text && *text ? (int)strtol(text, NULL, 10) : -1;
}

/* Before it is let go: a keeper that lives is one that the caller knows of, whatever becomes of us.
 */
static int tell_of(pid_t pid, pid_t keeper)
{
    struct record r = {pid, keeper, 0, 0};
    return real_write(hidden_fd(), &r, sizeof(r)) == (ssize_t)sizeof(r);
}

/* The middle's work, and its end. */
static pid_t make_keeper(const struct task *process, pid_t middle)
{
    struct task t = {.pid = middle, .instruction = process->instruction, .regs = process->regs};
    pid_t keeper = 0;
    int good = is_born(middle) && ends_with_us(middle) &&
               call(&t, &keeper, SYS_clone, CLONE_VM, 0, 0, 0) > 0 && is_born(keeper) &&
               tell_of(process->pid, keeper) && settle(&t, keeper) == 0;
    if (!good)
        end_task(keeper);
    end_task(middle);
    return good ? keeper : 0;
}

/* With all signals held back, so that none is taken in the middle.  If CRIU is killed now the
 * process ends: it must not go on with registers that are not its own. */
static int enter(struct task *t)
{
    uint64_t all = UINT64_MAX;
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    t->instruction = find_instruction(t->pid);
    return t->instruction && ptrace(PTRACE_GETREGS, t->pid, NULL, &t->regs) == 0 &&
           t->regs.cs == CODE_64 &&
           ptrace(PTRACE_GETSIGMASK, t->pid, SIGSET_BYTES, &t->mask) == 0 &&
           (ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)(options | SUSPEND_SECCOMP)) == 0 ||
            ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)options) == 0) &&
           ptrace(PTRACE_SETSIGMASK, t->pid, SIGSET_BYTES, &all) == 0;
}

/* As it was, and in a stop from which the kernel restarts what was interrupted. */
static void leave(const struct task *t)
{
    int status = 0;
    (void)ptrace(PTRACE_SETREGS, t->pid, NULL, &t->regs);
    (void)ptrace(PTRACE_SETSIGMASK, t->pid, SIGSET_BYTES, &t->mask);
    (void)ptrace(PTRACE_SETOPTIONS, t->pid, NULL, (void *)(long)PTRACE_O_TRACESYSGOOD);
    (void)ptrace(PTRACE_INTERRUPT, t->pid, NULL, NULL);
    do
        if (ptrace(PTRACE_CONT, t->pid, NULL, NULL) < 0 || wait_for(t->pid, &status) < 0)
            break;
    while (WIFSTOPPED(status) && status >> 16 != PTRACE_EVENT_STOP);
}

static pid_t keep(struct task *t)
{
    pid_t middle = 0, keeper = 0;
    if (!enter(t))
        return 0;
    long inner = call(t, &middle, SYS_clone, 0, 0, 0, 0);
    if (inner > 0) {
        keeper = make_keeper(t, middle);
        (void)call(t, NULL, SYS_wait4, (uint64_t)inner, 0, __WALL, 0);
    }
    leave(t);
    return keeper;
}

/* ---- who takes in orphans ---- */

/* 1: it does, 0: it does not, -1: that cannot be told. */
static int takes_orphans(const struct task *t)
{
    int told = -1;
    long page =
        call(t, NULL, SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS);
    if (page <= 0)
        return -1;
    if (call(t, NULL, SYS_prctl, PR_GET_CHILD_SUBREAPER, (uint64_t)page, 0, 0) == 0) {
        errno = 0;
        told = (int)ptrace(PTRACE_PEEKDATA, t->pid, (void *)page, NULL) != 0;
        told = errno ? -1 : told;
    }
    (void)call(t, NULL, SYS_munmap, (uint64_t)page, PAGE, 0, 0);
    return told;
}

static int set_orphans(pid_t pid, int take)
{
    struct task t = {.pid = pid};
    if (!enter(&t))
        return -1;
    long result = call(&t, NULL, SYS_prctl, PR_SET_CHILD_SUBREAPER, (uint64_t)take, 0, 0);
    leave(&t);
    return result == 0 ? 0 : -1;
}

/* A process that is ours; *parent: whose child it is. */
static int is_held(pid_t pid, pid_t *parent)
{
    char path[40], line[128];
    int tracer = 0, above = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "PPid: %d", &above) != 1 && sscanf(line, "TracerPid: %d", &tracer) == 1)
            break;
    if (f)
        (void)fclose(f);
    *parent = above;
    return tracer == getpid();
}

struct pids {
    pid_t *list;
    int n;
};

static int add_pid(struct pids *p, pid_t pid)
{
    for (int i = 0; i < p->n; i++)
        if (p->list[i] == pid)
            return 0;
    pid_t *more = realloc(p->list, ((size_t)p->n + 1) * sizeof(*more));
    if (!more)
        return -1;
    p->list = more;
    more[p->n++] = pid;
    return 1;
}

static int has_orphans(pid_t pid, struct pids *out)
{
    struct task t = {.pid = pid};
    if (!enter(&t))
        return -1;
    int takes = takes_orphans(&t);
    leave(&t);
    return takes > 0 ? add_pid(out, pid) : takes;
}

/* The processes of the tree, among these and above them, that would take in the keepers. */
static int find_reapers(const pid_t *list, int n, struct pids *out)
{
    struct pids seen = {NULL, 0};
    int good = 1;
    for (int i = 0; good && i < n; i++) {
        pid_t parent = 0;
        for (pid_t pid = list[i]; good && pid > 0 && is_held(pid, &parent); pid = parent) {
            int fresh = add_pid(&seen, pid);
            if (fresh == 0)
                break;
            good = fresh > 0 && has_orphans(pid, out) >= 0;
        }
    }
    free(seen.list);
    return good;
}

/* Whom CRIU has not seen all memory of; returns how many, or -1.  Nobody where the caller has
 * written a record of zeros: it knows by now that copying takes less than making keepers. */
static int find_processes(pid_t **out)
{
    struct stat st;
    int fd = hidden_fd(), n = 0;
    if (fd < 0 || fstat(fd, &st) < 0)
        return -1;
    size_t size = (size_t)st.st_size, count = size / sizeof(struct record);
    struct record *r = malloc(size + 1);
    pid_t *list = calloc(count + 1, sizeof(*list));
    if (!r || !list || pread(fd, r, size, 0) != (ssize_t)size)
        count = 0;
    for (size_t i = 0; i < count; i++) {
        int k = 0;
        if (r[i].pid == 0) {
            n = 0;
            break;
        }
        while (k < n && list[k] != r[i].pid)
            k++;
        if (k == n)
            list[n++] = r[i].pid;
    }
    free(r);
    *out = list;
    return n;
}

/* Keepers that nobody may have taken over. */
static pid_t *keepers;
static int n_keepers;
static pid_t maker; /* not its children */

static void end_keepers(void)
{
    for (int i = 0; i < n_keepers; i++)
        (void)kill(keepers[i], SIGKILL);
    n_keepers = 0;
}

static int make_keepers(const pid_t *list, int n)
{
    for (int i = 0; i < n; i++) {
        struct task t = {.pid = list[i]};
        pid_t keeper = keep(&t);
        if (keeper <= 0)
            return 0;
        keepers[n_keepers++] = keeper;
    }
    return 1;
}

/* A record of one that is gone is of no use to anybody. */
static void forget(off_t end)
{
    end_keepers();
    (void)!ftruncate(hidden_fd(), end);
    (void)lseek(hidden_fd(), end, SEEK_SET);
}

static void keep_all(void)
{
    pid_t *list = NULL;
    struct pids reapers = {NULL, 0};
    int n = find_processes(&list), set = 0;
    off_t end = lseek(hidden_fd(), 0, SEEK_END);
    keepers = n > 0 && end >= 0 ? calloc((size_t)n, sizeof(*keepers)) : NULL;
    maker = getpid();
    int good = keepers && find_reapers(list, n, &reapers);
    while (good && set < reapers.n && (good = set_orphans(reapers.list[set], 0) == 0))
        set++;
    good = good && make_keepers(list, n);
    for (int i = 0; i < set; i++)
        (void)set_orphans(reapers.list[i], 1);
    if (keepers && !good)
        forget(end);
    free(list);
    free(reapers.list);
}

/* Stopped, and not by a tracer, who may be in another PID namespace and have no PID here. */
static int is_left(pid_t pid)
{
    char path[40], line[128], state = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof(line), f))
        if (sscanf(line, "State: %c", &state) == 1)
            break;
    if (f)
        (void)fclose(f);
    return state == 'T';
}

/* Our caller has died before it could take them over. */
__attribute__((destructor)) static void end_orphans(void)
{
    for (int i = 0; maker == getpid() && i < n_keepers; i++)
        if (is_left(keepers[i]))
            (void)kill(keepers[i], SIGKILL);
}

static int says_dumped(int fd, const void *data, size_t len)
{
    struct stat st;
    return len < 4096 && memmem(data, len, "post-dump", 9) && fstat(fd, &st) == 0 &&
           S_ISSOCK(st.st_mode);
}

__attribute__((visibility("default"))) ssize_t write(int fd, const void *data, size_t len)
{
    static int done;
    const char *how = getenv("CHREK_HIDDEN_FD");
    if (how && strstr(how, ",keep") && !done && says_dumped(fd, data, len)) {
        done = 1;
        keep_all();
    }
    return real_write(fd, data, len);
}

#endif
