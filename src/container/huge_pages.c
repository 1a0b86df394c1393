#include "container/huge_pages.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "container/maps.h"
#include "container/task.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Of Linux 6.1; our headers may be older. */
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif

#define POLICY_FILE "/sys/kernel/mm/transparent_hugepage/enabled"
#define SMALL ((uint64_t)4096)
#define SMALL_PAGES (HUGE_PAGES_SIZE / SMALL)

/* Of /proc/<pid>/pagemap, see the kernel's admin-guide/mm/pagemap. */
#define ENTRY_PRESENT ((uint64_t)1 << 63)
#define ENTRY_FILE ((uint64_t)1 << 61)
#define ENTRY_EXCLUSIVE ((uint64_t)1 << 56)

bool huge_pages_can(void)
{
    return madvise(NULL, 0, MADV_COLLAPSE) == 0; /* of nothing: is it known at all */
}

struct joining {
    int process, pagemap; /* pidfd */
    bool (*more)(void *arg);
    void *arg;
};

enum policy { POLICY_NEVER, POLICY_ASKED, POLICY_ALWAYS };

/* What the machine's owner wants. */
static enum policy policy(void)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (fs_read_file(AT_FDCWD, POLICY_FILE, 256, &text, NULL) != RC_OK)
        return POLICY_NEVER;
    if (strstr(buf_str(&text), "[always]"))
        return POLICY_ALWAYS;
    return strstr(buf_str(&text), "[madvise]") ? POLICY_ASKED : POLICY_NEVER;
}

/* Private memory without a file. */
static bool is_wanted(const struct map *m, enum policy p)
{
    unsigned no = MAPS_SHARES | MAPS_HUGE | MAPS_IO | MAPS_SHADOW | MAPS_NO_HUGE_PAGES;
    bool anonymous = m->ino == 0 && (m->name[0] == '\0' || strcmp(m->name, "[heap]") == 0 ||
                                     strncmp(m->name, "[anon:", 6) == 0);
    return anonymous && !(m->flags & no) &&
           (p == POLICY_ALWAYS || (m->flags & MAPS_WANTS_HUGE_PAGES));
}

static bool is_whole(const struct joining *j, uint64_t address)
{
    uint64_t entries[SMALL_PAGES];
    ssize_t n = pread(j->pagemap, entries, sizeof(entries), (off_t)(address / SMALL * 8));
    if (n != (ssize_t)sizeof(entries))
        return false;
    for (size_t i = 0; i < SMALL_PAGES; i++)
        if ((entries[i] & (ENTRY_PRESENT | ENTRY_FILE | ENTRY_EXCLUSIVE)) !=
            (ENTRY_PRESENT | ENTRY_EXCLUSIVE))
            return false;
    return true;
}

/* What the program has changed meanwhile is none of our business. */
static enum rc join(const struct joining *j, uint64_t address, struct err *err)
{
    struct iovec piece = {(void *)(uintptr_t)address, HUGE_PAGES_SIZE};
    long n = syscall(SYS_process_madvise, j->process, &piece, 1, MADV_COLLAPSE, 0);
    if (n >= 0 || errno == EAGAIN || errno == EBUSY || errno == EINVAL)
        return RC_OK;
    if (errno == ESRCH)
        return err_set(err, RC_NOT_FOUND, "the process has ended");
    return errno == ENOMEM ? err_set(err, RC_NO_SPACE, "there are no huge pages left")
                           : err_sys(err, "join pages");
}

static enum rc join_map(const struct joining *j, const struct map *m, bool *out_enough,
                        struct err *err)
{
    uint64_t at = (m->start + HUGE_PAGES_SIZE - 1) & ~(HUGE_PAGES_SIZE - 1);
    enum rc rc = RC_OK;
    for (; !rc && m->end - at >= HUGE_PAGES_SIZE && at < m->end; at += HUGE_PAGES_SIZE) {
        *out_enough = !j->more(j->arg);
        if (*out_enough)
            break;
        if (is_whole(j, at))
            rc = join(j, at, err);
    }
    return rc;
}

/* By number, and then whether that is still the same process. */
static enum rc open_process(const struct proc_facts *p, int *out_process, int *out_task,
                            struct err *err)
{
    struct proc_facts now;
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    CLEANUP(fd_closep) int process = (int)syscall(SYS_pidfd_open, p->pid, 0);
    if (process < 0)
        return errno == ESRCH ? err_set(err, RC_NOT_FOUND, "process %d has ended", (int)p->pid)
                              : err_sys(err, "open process %d", (int)p->pid);
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, p->pid, &task, err);
    if (!rc)
        rc = proc_facts_read(p->pid, &now, err);
    if (!rc && now.start != p->start)
        rc = err_set(err, RC_NOT_FOUND, "the process has ended");
    if (rc)
        return rc;
    *out_process = fd_steal(&process);
    *out_task = fd_steal(&task);
    return RC_OK;
}

enum rc huge_pages_join(const struct proc_facts *process, bool (*more)(void *arg), void *arg,
                        struct err *err)
{
    enum policy p = policy();
    int process_fd = -1, task_fd = -1;
    CLEANUP(maps_done) struct maps maps = {0};
    bool enough = p == POLICY_NEVER;
    if (!huge_pages_can())
        return err_set(err, RC_UNSUPPORTED, "this kernel joins no pages on request");
    enum rc rc = open_process(process, &process_fd, &task_fd, err);
    CLEANUP(fd_closep) int pidfd = process_fd;
    CLEANUP(fd_closep) int task = task_fd;
    if (!rc && !enough)
        rc = maps_read(task, true, &maps, err);
    if (rc || enough)
        return rc;
    CLEANUP(fd_closep) int pagemap = sys_openat(task, "pagemap", O_RDONLY, 0);
    if (pagemap < 0)
        return err_sys(err, "read which pages there are");
    struct joining j = {pidfd, pagemap, more, arg};
    for (size_t i = 0; !rc && !enough && i < maps.n; i++)
        if (is_wanted(&maps.list[i], p))
            rc = join_map(&j, &maps.list[i], &enough, err);
    return rc;
}
