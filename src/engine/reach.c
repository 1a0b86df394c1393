#include "engine/reach.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GROUPS_MAX 65536 /* NGROUPS_MAX of the kernel */

enum rc reach_make(const struct task_status *who, const char *groups, struct reach *out,
                   struct err *err)
{
    char *save = NULL;
    CLEANUP(mem_freep) char *copy = mem_strdup(groups);
    CLEANUP(reach_done)
    struct reach r = {.uid = who->uid[3], .gid = who->gid[3], .caps = who->caps[TASK_CAP_PRM]};
    r.groups = mem_zalloc((strlen(groups) + 1) * sizeof(*r.groups));
    for (char *g = strtok_r(copy, "\t ", &save); g; g = strtok_r(NULL, "\t ", &save)) {
        uint64_t number = 0;
        enum rc rc = num_parse_u64(g, 0, UINT_MAX, &number, err);
        if (rc)
            return err_ctx(err, RC_CORRUPT, "groups of a process");
        r.groups[r.n_groups++] = (gid_t)number;
    }
    if (r.n_groups > GROUPS_MAX)
        return err_set(err, RC_CORRUPT, "a process in %zu groups", r.n_groups);
    *out = r;
    r = (struct reach){.groups = NULL};
    return RC_OK;
}

void reach_done(struct reach *r)
{
    free(STEAL(r->groups));
}

/* ---- the attempt ---- */

struct attempt {
    const struct reach *who;
    int file, how, root;
    const char *path;
    const char *what; /* has failed; NULL: nothing has */
    int why;
};

/* The system calls themselves: they are about the calling thread, the C library's are about all. */
static bool become(const struct reach *r)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[2];
    if (syscall(SYS_setgroups, r->n_groups, r->groups) < 0)
        return false;
    (void)syscall(SYS_setfsgid, r->gid);
    (void)syscall(SYS_setfsuid, r->uid);
    if ((gid_t)syscall(SYS_setfsgid, -1) != r->gid || (uid_t)syscall(SYS_setfsuid, -1) != r->uid)
        return errno = EPERM, false;
    if (syscall(SYS_capget, &head, caps) < 0)
        return false;
    for (int i = 0; i < 2; i++) {
        caps[i].permitted &= (uint32_t)(r->caps >> (32 * i));
        caps[i].effective = caps[i].permitted;
        caps[i].inheritable = 0;
    }
    return syscall(SYS_capset, &head, caps) == 0;
}

static bool is_same(int a, int b)
{
    struct stat x, y;
    return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static const char *try(struct attempt *a)
{
    errno = 0;
    if (!become(a->who))
        return "take the container's rights";
    if (a->root >= 0) {
        CLEANUP(fd_closep)
        int named =
            sys_open_in_root(a->root, a->path, O_PATH | O_NOFOLLOW, 0, RESOLVE_NO_MAGICLINKS);
        if (named < 0)
            return "find it by its name";
        if (!is_same(named, a->file))
            return errno = ESTALE, "find it by its name";
    }
    if (a->how && syscall(SYS_faccessat2, a->file, "", a->how, AT_EMPTY_PATH | AT_EACCESS) < 0)
        return "open it";
    return NULL;
}

static void *attempt_thread(void *arg)
{
    struct attempt *a = arg;
    a->what = try(a);
    a->why = errno;
    return NULL;
}

enum rc reach_file(const struct reach *r, int file, int how, int root, const char *path,
                   struct err *err)
{
    pthread_t thread;
    struct attempt a = {.who = r, .file = file, .how = how, .root = root, .path = path};
    if (pthread_create(&thread, NULL, attempt_thread, &a) != 0)
        return err_sys(err, "start a thread");
    (void)pthread_join(thread, NULL);
    if (!a.what)
        return RC_OK;
    return err_set(err, RC_DENIED, "this container could not %s (%s)", a.what,
                   strerrordesc_np(a.why));
}
