#include "container/task.h"

#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/scan.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#define FILE_MAX ((size_t)256 << 20) /* smaps of a million areas */
#define PROCESSES_MAX 65536
#define KERNEL_THREAD 0x00200000 /* PF_KTHREAD */
#define EXITING 0x4U             /* PF_EXITING */
#define SIGNALED 0x400U          /* PF_SIGNALED */

enum rc task_open_proc(const char *path, int *out, struct err *err)
{
    struct statfs sfs;
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 || fstatfs(fd, &sfs) < 0)
        return err_sys(err, "open '%s'", path);
    if (sfs.f_type != PROC_SUPER_MAGIC)
        return err_set(err, RC_INVALID, "'%s' is no proc file system", path);
    *out = fd_steal(&fd);
    return RC_OK;
}

static enum rc gone(struct err *err)
{
    return err_set(err, RC_NOT_FOUND, "the process has ended");
}

enum rc task_open(int proc, pid_t pid, int *out, struct err *err)
{
    char name[24];
    (void)snprintf(name, sizeof(name), "%d", (int)pid);
    int fd = pid > 0 ? sys_openat(proc, name, O_RDONLY | O_DIRECTORY, 0) : -1;
    if (pid <= 0 || (fd < 0 && errno == ENOENT))
        return err_set(err, RC_NOT_FOUND, "no process %d", (int)pid);
    if (fd < 0)
        return err_sys(err, "open process %d", (int)pid);
    *out = fd;
    return RC_OK;
}

enum rc task_read(int task, const char *file, struct buf *out, struct err *err)
{
    struct err why = ERR_INIT;
    size_t before = out->len;
    if (!out->max)
        out->max = FILE_MAX;
    enum rc rc = fs_read_file(task, file, FILE_MAX, out, &why);
    if (!rc && out->overflowed)
        rc = err_set(&why, RC_TOO_BIG, "'%s' has more than %zu bytes", file, out->max);
    if (!rc)
        return RC_OK;
    if (out->len > before)
        out->data[out->len = before] = '\0';
    if (why.sys == ESRCH)
        return gone(err);
    return err_set(err, rc, "%s", why.msg);
}

enum rc task_link(int task, const char *name, char **out, struct err *err)
{
    char text[PATH_MAX + 1];
    ssize_t n = readlinkat(task, name, text, sizeof(text) - 1);
    if (n < 0 && errno == ESRCH)
        return gone(err);
    if (n < 0)
        return err_sys(err, "read link '%s'", name);
    text[n] = '\0';
    *out = mem_strdup(text);
    return RC_OK;
}

enum rc task_list(int task, const char *file, char ***out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, file, &text, err);
    if (rc)
        return rc;
    size_t n = 0;
    struct scan one, s = scan_of(text.data, text.len);
    while (scan_until(&s, '\0', &one))
        n++;
    char **list = mem_zalloc((n + 1) * sizeof(*list));
    s = scan_of(text.data, text.len);
    for (size_t i = 0; scan_until(&s, '\0', &one); i++)
        list[i] = scan_dup(one);
    *out = list;
    return RC_OK;
}

void task_list_free(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

void task_list_freep(char ***list)
{
    task_list_free(STEAL(*list));
}

/* ---- stat ---- */

/* "PID (name) S ppid ...": the name may hold anything, so the last parenthesis counts. */
static const char *last_close(struct scan s)
{
    return memrchr(s.at, ')', scan_len(s));
}

enum rc task_stat_parse(const char *text, size_t len, struct task_stat *out, struct err *err)
{
    /* Numbered as in proc(5): field 3 is the first after the name. */
    enum { PPID = 4, PGID, SID, TTY, FLAGS = 9, THREADS = 20, START = 22, RSS = 24, LAST = 24 };
    struct scan word, s = scan_of(text, len), pid;
    const char *open = memchr(s.at, '(', len), *close = last_close(s);
    uint64_t field[LAST + 1] = {0}, number = 0;
    if (!open || !close || close < open || !scan_word(&s, &pid) || !scan_u64(pid, 10, &number) ||
        number > INT_MAX)
        return err_set(err, RC_CORRUPT, "stat of a process makes no sense");
    struct task_stat t = {.pid = (pid_t)number};
    scan_copy((struct scan){open + 1, close}, t.name, sizeof(t.name));

    s.at = close + 1;
    if (!scan_word(&s, &word) || scan_len(word) != 1)
        return err_set(err, RC_CORRUPT, "stat of process %d has no state", (int)t.pid);
    t.state = *word.at;
    for (int i = PPID; i <= LAST; i++) {
        int64_t value = 0; /* some are negative: tpgid, priority */
        if (!scan_word(&s, &word) ||
            (!scan_i64(word, INT64_MIN, INT64_MAX, &value) && !scan_u64(word, 10, &field[i])))
            return err_set(err, RC_CORRUPT, "field %d of stat of process %d makes no sense", i,
                           (int)t.pid);
        if (value)
            field[i] = (uint64_t)value;
    }
    t.ppid = (pid_t)field[PPID];
    t.pgid = (pid_t)field[PGID];
    t.sid = (pid_t)field[SID];
    t.tty = (int)field[TTY];
    t.flags = (unsigned)field[FLAGS];
    t.threads = (unsigned)field[THREADS];
    t.start_ticks = field[START];
    t.rss_pages = field[RSS] > INT64_MAX ? 0 : field[RSS];
    *out = t;
    return RC_OK;
}

enum rc task_stat_read(int task, struct task_stat *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, "stat", &text, err);
    return rc ? rc : task_stat_parse(text.data, text.len, out, err);
}

bool task_is_kernel_thread(const struct task_stat *s)
{
    return (s->flags & KERNEL_THREAD) != 0;
}

bool task_is_exiting(const struct task_stat *s)
{
    return (s->flags & (EXITING | SIGNALED)) != 0;
}

/* ---- status ---- */

enum field_kind {
    F_NAME,
    F_STATE,
    F_PID,
    F_IDS,
    F_NS_PID,
    F_NS_SID,
    F_CAPS,
    F_KB,
    F_NUMBER,
    F_BOOL
};

#define AT(member) offsetof(struct task_status, member)

static const struct field {
    const char *key;
    enum field_kind kind;
    size_t at;
} fields[] = {
    {"Name", F_NAME, AT(name)},
    {"State", F_STATE, AT(state)},
    {"Tgid", F_PID, AT(tgid)},
    {"Pid", F_PID, AT(pid)},
    {"PPid", F_PID, AT(ppid)},
    {"TracerPid", F_PID, AT(tracer)},
    {"SigPnd", F_CAPS, AT(pending)},
    {"Uid", F_IDS, AT(uid)},
    {"Gid", F_IDS, AT(gid)},
    {"NSpid", F_NS_PID, AT(ns_pid)},
    {"NSsid", F_NS_SID, AT(inner_sid)},
    {"Kthread", F_BOOL, AT(kernel_thread)},
    {"VmLck", F_KB, AT(locked_bytes)},
    {"VmPin", F_KB, AT(pinned_bytes)},
    {"VmRSS", F_KB, AT(rss_bytes)},
    {"HugetlbPages", F_KB, AT(hugetlb_bytes)},
    {"Threads", F_NUMBER, AT(threads)},
    {"CapInh", F_CAPS, AT(caps[TASK_CAP_INH])},
    {"CapPrm", F_CAPS, AT(caps[TASK_CAP_PRM])},
    {"CapEff", F_CAPS, AT(caps[TASK_CAP_EFF])},
    {"CapBnd", F_CAPS, AT(caps[TASK_CAP_BND])},
    {"CapAmb", F_CAPS, AT(caps[TASK_CAP_AMB])},
    {"NoNewPrivs", F_BOOL, AT(no_new_privs)},
    {"Seccomp", F_NUMBER, AT(seccomp)},
    {"Seccomp_filters", F_NUMBER, AT(seccomp_filters)},
};

static bool take_number(struct scan *s, unsigned base, uint64_t max, uint64_t *out)
{
    struct scan word;
    return scan_word(s, &word) && scan_u64(word, base, out) && *out <= max;
}

static bool take_ids(struct scan s, uint32_t *ids)
{
    uint64_t n = 0;
    for (int i = 0; i < 4; i++) {
        if (!take_number(&s, 10, UINT32_MAX, &n))
            return false;
        ids[i] = (uint32_t)n;
    }
    return true;
}

static bool take_ns_pid(struct scan s, struct task_status *t)
{
    uint64_t n = 0;
    struct scan word;
    t->n_ns_pid = 0;
    while (scan_word(&s, &word)) {
        if (t->n_ns_pid == TASK_NS_DEPTH_MAX || !scan_u64(word, 10, &n) || n > INT_MAX)
            return false;
        t->ns_pid[t->n_ns_pid++] = (pid_t)n;
    }
    return true;
}

static bool take_inner_sid(struct scan s, struct task_status *t)
{
    uint64_t n = 0;
    struct scan word;
    while (scan_word(&s, &word)) {
        if (!scan_u64(word, 10, &n) || n > INT_MAX)
            return false;
        t->has_inner_sid = true;
        t->inner_sid = (pid_t)n;
    }
    return true;
}

static bool take_field(const struct field *f, struct scan s, struct task_status *t)
{
    void *to = (char *)t + f->at;
    struct scan word;
    uint64_t n = 0;
    switch (f->kind) {
    case F_NAME:
        s.at += s.at < s.end && *s.at == '\t';
        scan_copy(s, to, TASK_NAME_MAX);
        return true;
    case F_STATE:
        if (!scan_word(&s, &word) || scan_len(word) != 1)
            return false;
        *(char *)to = *word.at;
        return true;
    case F_IDS:
        return take_ids(s, to);
    case F_NS_PID:
        return take_ns_pid(s, t);
    case F_NS_SID:
        return take_inner_sid(s, t);
    case F_CAPS:
        return take_number(&s, 16, UINT64_MAX, to);
    case F_KB:
        if (!take_number(&s, 10, UINT64_MAX / 1024, &n))
            return false;
        *(uint64_t *)to = n * 1024;
        return true;
    case F_PID:
    case F_NUMBER:
    case F_BOOL:
    default:
        if (!take_number(&s, 10, f->kind == F_BOOL ? 1 : INT_MAX, &n))
            return false;
        if (f->kind == F_BOOL)
            *(bool *)to = n == 1;
        else
            *(unsigned *)to = (unsigned)n; /* pid_t has the same size */
        return true;
    }
}

static const struct field *field_of(struct scan key)
{
    for (size_t i = 0; i < ARRAY_LEN(fields); i++)
        if (scan_is(key, fields[i].key))
            return &fields[i];
    return NULL;
}

enum rc task_status_parse(const char *text, size_t len, struct task_status *out, struct err *err)
{
    struct task_status t = {0};
    struct scan line, key, s = scan_of(text, len);
    bool named = false;
    while (scan_line(&s, &line)) {
        if (!scan_until(&line, ':', &key))
            continue;
        const struct field *f = field_of(key);
        if (f && !take_field(f, line, &t))
            return err_set(err, RC_CORRUPT, "'%s' of a process makes no sense", f->key);
        named |= f && f->kind == F_NAME;
    }
    if (!named || !t.state || t.pid <= 0)
        return err_set(err, RC_CORRUPT, "status of a process is not complete");
    *out = t;
    return RC_OK;
}

enum rc task_status_read(int task, struct task_status *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, "status", &text, err);
    return rc ? rc : task_status_parse(text.data, text.len, out, err);
}

pid_t task_inner_pid(const struct task_status *s)
{
    return s->n_ns_pid ? s->ns_pid[s->n_ns_pid - 1] : s->pid;
}

/* ---- directories of numbers ---- */

static int by_number(const void *a, const void *b)
{
    pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;
    return (x > y) - (x < y);
}

static void close_dirp(DIR **dir)
{
    if (*dir)
        (void)closedir(*dir);
}

/* The entries of a directory that are numbers, ascending. */
static enum rc numbers_in(int at, const char *name, size_t max, pid_t **out, size_t *out_n,
                          struct err *err)
{
    CLEANUP(fd_closep) int fd = sys_openat(at, name, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0 && (errno == ESRCH || errno == ENOENT))
        return gone(err);
    CLEANUP(close_dirp) DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir)
        return err_sys(err, "list '%s'", name);
    (void)fd_steal(&fd); /* now the DIR's */
    size_t n = 0, cap = 64;
    CLEANUP(mem_freep) pid_t *list = mem_alloc(cap * sizeof(*list));
    for (const struct dirent *e; (e = readdir(dir));) {
        uint64_t pid = 0;
        if (!scan_u64(scan_of(e->d_name, strlen(e->d_name)), 10, &pid) || pid > INT_MAX)
            continue;
        if (n == max)
            return err_set(err, RC_TOO_BIG, "more than %zu entries in '%s'", max, name);
        if (n == cap)
            list = mem_realloc(list, (cap *= 2) * sizeof(*list));
        list[n++] = (pid_t)pid;
    }
    qsort(list, n, sizeof(*list), by_number);
    *out = STEAL(list);
    *out_n = n;
    return RC_OK;
}

enum rc task_threads(int task, pid_t **out, size_t *out_n, struct err *err)
{
    return numbers_in(task, "task", PROCESSES_MAX, out, out_n, err);
}

/* Move to the front, from index `have` on, every child of those already there. */
static size_t gather(struct task_stat *all, size_t n, size_t have)
{
    for (size_t parent = 0; parent < have; parent++)
        for (size_t i = have; i < n; i++)
            if (all[i].ppid == all[parent].pid) {
                struct task_stat child = all[i];
                all[i] = all[have];
                all[have++] = child;
            }
    return have;
}

enum rc task_tree(int proc, pid_t root, struct task_stat **out, size_t *out_n, struct err *err)
{
    CLEANUP(mem_freep) pid_t *pids = NULL;
    size_t n_pids = 0, n = 0;
    enum rc rc = numbers_in(proc, ".", PROCESSES_MAX, &pids, &n_pids, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) struct task_stat *all = mem_alloc((n_pids + 1) * sizeof(*all));
    for (size_t i = 0; i < n_pids; i++) {
        CLEANUP(fd_closep) int task = -1;
        if (task_open(proc, pids[i], &task, NULL) == RC_OK &&
            task_stat_read(task, &all[n], NULL) == RC_OK)
            n++;
    }
    size_t at = 0;
    while (at < n && all[at].pid != root)
        at++;
    if (at == n)
        return err_set(err, RC_NOT_FOUND, "no process %d", (int)root);
    struct task_stat first = all[at];
    all[at] = all[0];
    all[0] = first;
    *out_n = gather(all, n, 1);
    *out = STEAL(all);
    return RC_OK;
}
