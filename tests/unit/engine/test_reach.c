#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "engine/reach.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAC_OVERRIDE (1ULL << 1)

static const struct reach nobody = {.uid = 1000, .gid = 1000};

/* A descriptor of a file in the test's directory with this mode, of root. */
static int make(const char *name, mode_t mode)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", test_dir(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && fchmod(fd, mode) == 0 && close(fd) == 0 && chmod(test_dir(), 0755) == 0);
    return open(path, O_PATH | O_CLOEXEC);
}

static enum rc look(const struct reach *who, int fd, int how)
{
    struct err err = ERR_INIT;
    return reach_file(who, fd, how, -1, NULL, &err);
}

TEST(what_somebody_may_open)
{
    if (geteuid() != 0)
        test_skip("machine: not root");
    CLEANUP(fd_closep) int open_to_all = make("open", 0644);
    CLEANUP(fd_closep) int own = make("own", 0600);
    struct reach root = {.uid = 0, .gid = 0};
    CHECK_INT(look(&nobody, open_to_all, R_OK), RC_OK);
    CHECK_INT(look(&nobody, open_to_all, W_OK), RC_DENIED);
    CHECK_INT(look(&nobody, own, R_OK), RC_DENIED);
    CHECK_INT(look(&nobody, own, 0), RC_OK);
    CHECK_INT(look(&root, own, R_OK | W_OK), RC_OK);
    CHECK_INT(fchownat(own, "", 1000, 1000, AT_EMPTY_PATH), 0);
    CHECK_INT(look(&nobody, own, R_OK | W_OK), RC_OK);
    CHECK_INT(look(&root, own, R_OK), RC_DENIED); /* a root without capabilities */
    root.caps = DAC_OVERRIDE;
    CHECK_INT(look(&root, own, R_OK), RC_OK);
    CHECK_INT(geteuid(), 0); /* only the thread that looked was somebody else */
    CHECK_INT(look(&root, open_to_all, W_OK), RC_OK);
}

TEST(groups_count)
{
    if (geteuid() != 0)
        test_skip("machine: not root");
    struct err err = ERR_INIT;
    CLEANUP(reach_done) struct reach who = {.groups = NULL};
    const struct task_status status = {.uid = {1, 1, 1, 1000}, .gid = {1, 1, 1, 1000}};
    CLEANUP(fd_closep) int fd = make("group", 0640);
    CHECK_INT(fchownat(fd, "", 0, 77, AT_EMPTY_PATH), 0);
    CHECK_OK(reach_make(&status, "\t5 77 ", &who, &err));
    CHECK_INT(look(&who, fd, R_OK), RC_OK);
    who.n_groups = 1;
    CHECK_INT(look(&who, fd, R_OK), RC_DENIED);
}

TEST(the_name_must_lead_to_it)
{
    if (geteuid() != 0)
        test_skip("machine: not root");
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int one = make("one", 0644);
    CLEANUP(fd_closep) int two = make("two", 0644);
    CLEANUP(fd_closep) int root = open(test_dir(), O_PATH | O_DIRECTORY | O_CLOEXEC);
    CHECK_OK(reach_file(&nobody, one, R_OK, root, "/one", &err));
    CHECK_RC(reach_file(&nobody, one, R_OK, root, "/two", &err), RC_DENIED);
    CHECK_RC(reach_file(&nobody, two, R_OK, root, "/gone", &err), RC_DENIED);
    CHECK_INT(fchmodat(root, ".", 0700, 0), 0);
    CHECK_RC(reach_file(&nobody, one, R_OK, root, "/one", &err), RC_DENIED);
    CHECK_INT(fchmodat(root, ".", 0755, 0), 0);
}
