#include "engine/survivors.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/halt.h"
#include "container/maps.h"
#include "container/task.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PARASITE "/memfd:CRIUMFD" /* CRIU's memory in a process */
#define CODE 16                   /* bytes at the first executable address that CRIU uses */
#define PAUSE_NS 20000000L
#define NAMED_MAX 4 /* of those lost */

/* Everything but what cannot be blocked. */
#define ALL_BLOCKED (UINT64_MAX & ~(1ULL << (SIGKILL - 1)) & ~(1ULL << (SIGSTOP - 1)))

struct mask {
    pid_t tid;
    uint64_t blocked;
};

struct survivors {
    const struct proc_facts *tree;
    size_t n;
    struct mask *masks; /* of all threads */
    size_t n_masks;
};

/* ---- before ---- */

/* The signals that a thread blocks.  errors RC_NOT_FOUND */
static enum rc read_mask(pid_t pid, pid_t tid, uint64_t *out, struct err *err)
{
    static const char key[] = "\nSigBlk:";
    char file[40];
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)snprintf(file, sizeof(file), "task/%d/status", (int)tid);
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    if (!rc)
        rc = task_read(task, file, &text, err);
    if (rc)
        return rc;
    const char *at = strstr(buf_str(&text), key);
    if (!at)
        return err_set(err, RC_NOT_FOUND, "thread %d does not say what it blocks", (int)tid);
    *out = strtoull(at + sizeof(key) - 1, NULL, 16);
    return RC_OK;
}

static enum rc threads_of(pid_t pid, pid_t **out, size_t *out_n)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = task_open_proc("/proc", &proc, NULL);
    if (!rc)
        rc = task_open(proc, pid, &task, NULL);
    return rc ? rc : task_threads(task, out, out_n, NULL);
}

static void note_masks(struct survivors *s, pid_t pid)
{
    CLEANUP(mem_freep) pid_t *tids = NULL;
    size_t n = 0;
    if (threads_of(pid, &tids, &n) != RC_OK)
        return;
    s->masks = mem_realloc(s->masks, (s->n_masks + n + 1) * sizeof(*s->masks));
    for (size_t i = 0; i < n; i++) {
        struct mask m = {.tid = tids[i]};
        if (read_mask(pid, tids[i], &m.blocked, NULL) == RC_OK)
            s->masks[s->n_masks++] = m;
    }
}

void survivors_note(const struct proc_facts *tree, size_t n, struct survivors **out)
{
    struct survivors *s = mem_zalloc(sizeof(*s));
    *s = (struct survivors){.tree = tree, .n = n};
    for (size_t i = 0; i < n; i++)
        if (tree[i].state != 'Z')
            note_masks(s, tree[i].pid);
    *out = s;
}

void survivors_freep(struct survivors **p)
{
    struct survivors *s = STEAL(*p);
    if (!s)
        return;
    free(s->masks);
    free(s);
}

/* ---- one process ---- */

static enum rc read_maps(pid_t pid, struct maps *out, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, pid, &task, err);
    return rc ? rc : maps_read(task, false, out, err);
}

static bool is_parasite(const struct map *m)
{
    return strncmp(m->name, PARASITE, sizeof(PARASITE) - 1) == 0;
}

/* The file's own bytes, where CRIU has left its own: a call of the kernel, and a name. */
static enum rc mend_area(pid_t pid, const struct map *m, struct err *err)
{
    static const uint8_t call[] = {0x0f, 0x05, 0xcc, 0xcc}, name[] = "CRIUMFD";
    char path[80];
    uint8_t now[CODE], right[CODE];
    (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)pid);
    CLEANUP(fd_closep) int memory = sys_openat(AT_FDCWD, path, O_RDWR, 0);
    if (memory < 0 || pread(memory, now, CODE, (off_t)m->start) != CODE ||
        (memcmp(now, call, sizeof(call)) != 0 && memcmp(now + CODE / 2, name, sizeof(name)) != 0))
        return RC_OK;
    (void)snprintf(path, sizeof(path), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, (int)pid,
                   m->start, m->end);
    CLEANUP(fd_closep) int file = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (file < 0 || pread(file, right, CODE, (off_t)m->off) != CODE ||
        pwrite(memory, right, CODE, (off_t)m->start) != CODE)
        return err_set(err, RC_IO, "CRIU has left code of its own in process %d", (int)pid);
    return RC_OK;
}

static enum rc mend_code(pid_t pid, struct err *err)
{
    CLEANUP(maps_done) struct maps maps = {0};
    if (read_maps(pid, &maps, NULL) != RC_OK)
        return RC_OK; /* it has ended */
    for (size_t i = 0; i < maps.n; i++)
        if (maps.list[i].flags & MAPS_EXEC && !is_parasite(&maps.list[i]))
            return maps.list[i].ino ? mend_area(pid, &maps.list[i], err) : RC_OK;
    return RC_OK;
}

/* Unmap what CRIU has left.  errors RC_CONFLICT: a thread is still there */
static enum rc unmap(struct halt *h, pid_t pid, const struct map *m, struct err *err)
{
    uint64_t args[6] = {m->start, m->end - m->start};
    long result = 0;
    if (halt_runs_in(h, pid, m->start, m->end))
        return err_set(err, RC_CONFLICT, "process %d is still held by what CRIU has left in it",
                       (int)pid);
    enum rc rc = halt_call(h, pid, SYS_munmap, args, &result, err);
    if (!rc && result < 0)
        rc = err_set(err, RC_IO, "unmap: %s", strerrordesc_np((int)-result));
    return rc ? err_ctx(err, rc, "memory of CRIU's stays in process %d", (int)pid) : RC_OK;
}

static enum rc mend_memory(struct halt *h, pid_t pid, struct err *err)
{
    CLEANUP(maps_done) struct maps maps = {0};
    enum rc rc = read_maps(pid, &maps, err);
    for (size_t i = 0; !rc && i < maps.n; i++)
        if (is_parasite(&maps.list[i]))
            rc = unmap(h, pid, &maps.list[i], err);
    return rc;
}

static enum rc mend_masks(const struct survivors *s, struct halt *h, pid_t pid, struct err *err)
{
    CLEANUP(mem_freep) pid_t *tids = NULL;
    size_t n = 0;
    enum rc rc = threads_of(pid, &tids, &n);
    for (size_t i = 0; !rc && i < n; i++)
        for (size_t k = 0; !rc && k < s->n_masks; k++) {
            uint64_t now = 0;
            const struct mask *m = &s->masks[k];
            if (m->tid == tids[i] && m->blocked != ALL_BLOCKED &&
                read_mask(pid, m->tid, &now, NULL) == RC_OK && now == ALL_BLOCKED)
                rc = halt_block(h, m->tid, m->blocked, err);
        }
    return rc == RC_NOT_FOUND ? RC_OK : rc;
}

static enum rc mend_process(const struct survivors *s, struct halt *h, pid_t pid, struct err *err)
{
    enum rc rc = mend_memory(h, pid, err);
    return rc ? rc : mend_masks(s, h, pid, err);
}

/* Whether it has to be stopped for what CRIU has left. */
static bool is_marked(pid_t pid)
{
    CLEANUP(maps_done) struct maps maps = {0};
    CLEANUP(mem_freep) pid_t *tids = NULL;
    size_t n = 0;
    bool found = false;
    if (read_maps(pid, &maps, NULL) != RC_OK)
        return false;
    for (size_t i = 0; i < maps.n && !found; i++)
        found = is_parasite(&maps.list[i]);
    if (found || threads_of(pid, &tids, &n) != RC_OK)
        return found;
    for (size_t i = 0; i < n && !found; i++) {
        uint64_t now = 0;
        found = read_mask(pid, tids[i], &now, NULL) == RC_OK && now == ALL_BLOCKED;
    }
    return found;
}

/* ---- all of them ---- */

/* A big one takes its time to die: its core is written. */
static bool is_dying(pid_t pid)
{
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    return task_open_proc("/proc", &proc, NULL) != RC_OK ||
           task_open(proc, pid, &task, NULL) != RC_OK ||
           task_read(task, "status", &text, NULL) != RC_OK ||
           strstr(buf_str(&text), "\nCoreDumping:\t1");
}

static bool lives(const struct proc_facts *was)
{
    struct proc_facts now;
    return proc_facts_read(was->pid, &now, NULL) == RC_OK && now.start == was->start &&
           now.state != 'Z' && now.state != 'X' && !is_dying(was->pid);
}

static void pause_briefly(void)
{
    struct timespec t = {0, PAUSE_NS};
    (void)nanosleep(&t, NULL);
}

static enum rc mend_one(const struct survivors *s, pid_t pid, uint64_t deadline, struct err *err)
{
    enum rc code = mend_code(pid, err);
    while (!code && is_marked(pid)) {
        struct err why = ERR_INIT;
        struct halt *h = NULL;
        enum rc rc = halt_tree(pid, deadline, &h, &why);
        if (!rc)
            rc = mend_process(s, h, pid, &why);
        halt_endp(&h);
        if (!rc || rc == RC_NOT_FOUND)
            return RC_OK;
        if (rc != RC_CONFLICT || clock_now() > deadline)
            return err_set(err, RC_IO, "%s", why.msg);
        pause_briefly();
    }
    return code;
}

/* ptrace knows threads: see container/halt.h. */
struct mending {
    const struct survivors *s;
    uint64_t deadline;
    enum rc rc;
    struct err err;
};

static void *mend_all(void *arg)
{
    struct mending *m = arg;
    const struct survivors *s = m->s;
    for (size_t i = 0; i < s->n; i++) {
        struct err why = ERR_INIT;
        if (s->tree[i].state == 'Z' || !lives(&s->tree[i]))
            continue;
        enum rc rc = mend_one(s, s->tree[i].pid, m->deadline, &why);
        if (rc && !m->rc) {
            m->rc = rc;
            m->err = why;
        }
        if (s->tree[i].state == 'T') /* CRIU has let it run for a moment */
            (void)kill(s->tree[i].pid, SIGSTOP);
    }
    return NULL;
}

/* A thread that was in CRIU's code dies in its next instruction. */
static enum rc count_lost(const struct survivors *s, struct err *err)
{
    CLEANUP(buf_done) struct buf who = BUF_INIT;
    size_t lost = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct proc_facts *was = &s->tree[i];
        if (was->state == 'Z' || lives(was))
            continue;
        if (lost < NAMED_MAX)
            buf_addf(&who, "%s%d (%s)", lost ? ", " : "", (int)was->pid, was->comm);
        lost++;
    }
    if (!lost)
        return RC_OK;
    if (lost > NAMED_MAX)
        buf_addf(&who, " and %zu others", lost - NAMED_MAX);
    return err_set(err, RC_IO, "process%s %s did not survive it", lost > 1 ? "es" : "",
                   buf_str(&who));
}

enum rc survivors_mend(const struct survivors *s, uint64_t deadline, struct err *err)
{
    struct mending m = {.s = s, .deadline = deadline};
    pthread_t thread;
    pause_briefly();
    if (pthread_create(&thread, NULL, mend_all, &m) == 0)
        (void)pthread_join(thread, NULL);
    else
        (void)mend_all(&m);
    enum rc rc = count_lost(s, err);
    if (!rc && m.rc && err)
        *err = m.err;
    return rc ? rc : m.rc;
}
