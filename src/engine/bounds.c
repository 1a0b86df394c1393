#include "engine/bounds.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TITLE_WIDTH 26 /* of the first column of /proc/PID/limits */
#define SCORE "oom_score_adj"
#define NICE_OF_LIMIT 20 /* RLIMIT_NICE n allows nice 20 - n */

/* What the kernel calls them there: fs/proc/base.c, lnames[]. */
static const char *const titles[RLIM_NLIMITS] = {
    [RLIMIT_CPU] = "Max cpu time",
    [RLIMIT_FSIZE] = "Max file size",
    [RLIMIT_DATA] = "Max data size",
    [RLIMIT_STACK] = "Max stack size",
    [RLIMIT_CORE] = "Max core file size",
    [RLIMIT_RSS] = "Max resident set",
    [RLIMIT_NPROC] = "Max processes",
    [RLIMIT_NOFILE] = "Max open files",
    [RLIMIT_MEMLOCK] = "Max locked memory",
    [RLIMIT_AS] = "Max address space",
    [RLIMIT_LOCKS] = "Max file locks",
    [RLIMIT_SIGPENDING] = "Max pending signals",
    [RLIMIT_MSGQUEUE] = "Max msgqueue size",
    [RLIMIT_NICE] = "Max nice priority",
    [RLIMIT_RTPRIO] = "Max realtime priority",
    [RLIMIT_RTTIME] = "Max realtime timeout",
};

/* ---- reading ---- */

static bool number(const char *word, uint64_t *out)
{
    if (strcmp(word, "unlimited") == 0) {
        *out = BOUNDS_UNLIMITED;
        return true;
    }
    return num_parse_u64(word, 0, UINT64_MAX - 1, out, NULL) == RC_OK;
}

static bool take_limit(const char *line, struct bounds_limits *l, uint32_t *seen)
{
    char soft[32], hard[32];
    for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
        size_t len = strlen(titles[i]);
        if (strncmp(line, titles[i], len) != 0 || line[len] != ' ')
            continue;
        *seen |= 1U << i;
        return strlen(line) > TITLE_WIDTH &&
               sscanf(line + TITLE_WIDTH, "%31s %31s", soft, hard) == 2 &&
               number(hard, &l->hard[i]);
    }
    return true; /* of a newer kernel, which CRIU does not know either */
}

enum rc bounds_parse_limits(const char *text, size_t len, struct bounds_limits *out,
                            struct err *err)
{
    struct bounds_limits l = {{0}};
    uint32_t seen = 0;
    char *save = NULL;
    CLEANUP(mem_freep) char *copy = mem_asprintf("%.*s", (int)len, text);
    for (char *line = strtok_r(copy, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        if (!take_limit(line, &l, &seen))
            return err_set(err, RC_CORRUPT, "limit '%.60s' makes no sense", line);
    if (seen != (1U << RLIM_NLIMITS) - 1)
        return err_set(err, RC_CORRUPT, "limits of a process are not complete");
    *out = l;
    return RC_OK;
}

enum rc bounds_parse_schedule(const char *text, size_t len, struct bounds_schedule *out,
                              struct err *err)
{
    /* Numbered as in proc(5): field 3 is the first after the name, which may hold anything. */
    enum { FIRST = 3, NICE = 19, PRIORITY = 40, POLICY = 41 };
    char *save = NULL;
    CLEANUP(mem_freep) char *copy = mem_asprintf("%.*s", (int)len, text);
    char *at = strrchr(copy, ')');
    int n = FIRST;
    struct bounds_schedule s = {0};
    for (char *word = at ? strtok_r(at + 1, " \n", &save) : NULL; word && n <= POLICY;
         word = strtok_r(NULL, " \n", &save), n++) {
        char *end = word;
        long long value = strtoll(word, &end, 10); /* niceness has a sign */
        if ((n == NICE || n == PRIORITY || n == POLICY) && *end)
            break;
        if (n == NICE)
            s.nice = (int)value;
        else if (n == PRIORITY)
            s.real_time_priority = (unsigned)value;
        else if (n == POLICY)
            s.policy = (unsigned)value;
    }
    if (n <= POLICY)
        return err_set(err, RC_CORRUPT, "stat of a thread makes no sense");
    *out = s;
    return RC_OK;
}

static enum rc read_limits(int task, struct bounds_limits *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, "limits", &text, err);
    return rc ? rc : bounds_parse_limits(text.data, text.len, out, err);
}

static enum rc read_schedule(int task, const char *file, struct bounds_schedule *out,
                             struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, file, &text, err);
    return rc ? rc : bounds_parse_schedule(text.data, text.len, out, err);
}

static enum rc read_score(int task, int *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, SCORE, &text, err);
    if (!rc && sscanf(buf_str(&text), "%d", out) != 1)
        rc = err_set(err, RC_CORRUPT, SCORE " of a process makes no sense");
    return rc;
}

enum rc bounds_read(int task, const struct task_status *status, struct bounds *out, struct err *err)
{
    struct bounds b = {.caps = status->caps[TASK_CAP_PRM]};
    enum rc rc = read_limits(task, &b.limits, err);
    if (!rc)
        rc = read_schedule(task, "stat", &b.schedule, err);
    if (!rc)
        rc = read_score(task, &b.oom_score_adj, err);
    if (!rc)
        *out = b;
    return rc;
}

/* ---- comparing ---- */

static bool may(const struct bounds *b, unsigned cap)
{
    return b->caps >> cap & 1;
}

enum rc bounds_check_limits(const struct bounds *limit, const struct bounds_limits *has,
                            struct err *err)
{
    for (unsigned i = 0; i < RLIM_NLIMITS && !may(limit, CAP_SYS_RESOURCE); i++)
        if (has->hard[i] > limit->limits.hard[i])
            return err_set(err, RC_DENIED,
                           "its limit '%s' is higher (%" PRIu64 ") than this container's (%" PRIu64
                           "); give both the same node configuration",
                           titles[i], has->hard[i], limit->limits.hard[i]);
    return RC_OK;
}

static bool is_real_time(unsigned policy)
{
    return policy != SCHED_OTHER && policy != SCHED_BATCH && policy != SCHED_IDLE;
}

enum rc bounds_check_schedule(const struct bounds *limit, const struct bounds_schedule *has,
                              struct err *err)
{
    uint64_t allowed = limit->limits.hard[RLIMIT_NICE];
    int lowest = allowed >= 2ULL * NICE_OF_LIMIT ? -NICE_OF_LIMIT : NICE_OF_LIMIT - (int)allowed;
    if (may(limit, CAP_SYS_NICE))
        return RC_OK;
    if (has->nice < limit->schedule.nice && has->nice < lowest)
        return err_set(err, RC_DENIED, "its nice value %d is lower than this container's, %d",
                       has->nice, limit->schedule.nice);
    if (is_real_time(has->policy) && (has->policy != limit->schedule.policy ||
                                      has->real_time_priority > limit->schedule.real_time_priority))
        return err_set(err, RC_DENIED,
                       "it is scheduled in real time (policy %u, priority %u), and this container "
                       "may not be",
                       has->policy, has->real_time_priority);
    return RC_OK;
}

/* Written also where nothing changes: by the number that is written last by somebody with the right
 * to, the kernel knows how low the process may go itself. */
static enum rc set_score(const struct bounds *limit, int task, struct err *err)
{
    char text[16];
    int has = 0;
    enum rc rc = read_score(task, &has, err);
    if (rc || may(limit, CAP_SYS_RESOURCE))
        return rc;
    int n =
        snprintf(text, sizeof(text), "%d", has < limit->oom_score_adj ? limit->oom_score_adj : has);
    CLEANUP(fd_closep) int fd = sys_openat(task, SCORE, O_WRONLY, 0);
    if (fd < 0)
        return err_sys(err, "open " SCORE);
    return sys_write_all(fd, text, (size_t)n, err);
}

enum rc bounds_check(const struct bounds *limit, int task, struct err *err)
{
    struct bounds_limits limits = {{0}};
    CLEANUP(mem_freep) pid_t *threads = NULL;
    size_t n = 0;
    enum rc rc = read_limits(task, &limits, err);
    if (!rc)
        rc = bounds_check_limits(limit, &limits, err);
    if (!rc)
        rc = task_threads(task, &threads, &n, err);
    for (size_t i = 0; !rc && i < n; i++) {
        char file[40];
        struct bounds_schedule has = {0};
        (void)snprintf(file, sizeof(file), "task/%d/stat", (int)threads[i]);
        rc = read_schedule(task, file, &has, err);
        if (!rc)
            rc = bounds_check_schedule(limit, &has, err);
    }
    return rc ? rc : set_score(limit, task, err);
}
