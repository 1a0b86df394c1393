#include "agent/signal_file.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/done.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A process whose root directory is `root`; needs root. */
static pid_t process_in(const char *root)
{
    int p[2];
    char c = 0;
    if (geteuid() != 0)
        test_skip("machine: needs root for chroot");
    CHECK(pipe(p) == 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (chroot(root) < 0 || chdir("/") < 0 || write(p[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            (void)pause();
    }
    CHECK(read(p[0], &c, 1) == 1);
    CHECK(close(p[0]) == 0 && close(p[1]) == 0);
    return pid;
}

static void end(pid_t pid)
{
    (void)kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
}

static int hold(pid_t pid)
{
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    CHECK(fd >= 0);
    return fd;
}

static const struct done good = {.checkpoint_id = "a", .checkpoint_path = "/c/a", .success = true};

TEST(the_file_appears_whole_in_the_processs_root)
{
    struct err err = ERR_INIT;
    struct stat st;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/new/folder/a.done", test_dir());
    pid_t pid = process_in(test_dir());
    CLEANUP(fd_closep) int held = hold(pid);
    (void)umask(077); /* its mode is its own */
    CHECK_OK(signal_file_write(held, "/new/folder/a.done", &good, &err));
    CHECK_OK(signal_file_write(held, "/new/folder/a.done", &good, &err)); /* also in place of one */
    CHECK_OK(fs_read_file(AT_FDCWD, path, 4096, &text, &err));
    CHECK(strstr(text.data, "{\n  \"checkpoint_id\": \"a\",\n  \"checkpoint_path\": \"/c/a\",\n"));
    CHECK(strstr(text.data, "\"success\": true\n}"));
    CHECK(stat(path, &st) == 0);
    CHECK_INT(st.st_mode & 0777, 0644);
    end(pid);
}

TEST(no_link_and_no_dots_lead_out_of_the_root)
{
    static const char *const paths[] = {"/out/a.done", "/up/a.done", "/../../a.done",
                                        "/link/deeper/a.done"};
    CLEANUP(mem_freep) char *root = mem_asprintf("%s/root", test_dir());
    CLEANUP(mem_freep) char *outside = mem_asprintf("%s/outside", test_dir());
    CHECK(mkdir(root, 0755) == 0 && mkdir(outside, 0755) == 0);
    CLEANUP(mem_freep) char *out = mem_asprintf("%s/out", root);
    CLEANUP(mem_freep) char *up = mem_asprintf("%s/up", root);
    CLEANUP(mem_freep) char *link = mem_asprintf("%s/link", root);
    CHECK(symlink(outside, out) == 0 && symlink("../outside", up) == 0 &&
          symlink("/proc/self/root", link) == 0);
    pid_t pid = process_in(root);
    CLEANUP(fd_closep) int held = hold(pid);
    for (size_t i = 0; i < ARRAY_LEN(paths); i++) {
        (void)!signal_file_write(held, paths[i], &good, NULL);
        CLEANUP(mem_freep) char *a = mem_asprintf("%s/a.done", outside);
        CLEANUP(mem_freep) char *b = mem_asprintf("%s/a.done", test_dir());
        CHECK(access(a, F_OK) < 0 && access(b, F_OK) < 0);
    }
    CHECK(access("/deeper", F_OK) < 0);
    end(pid);
}

TEST(what_is_no_file_of_a_process_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int self = hold(getpid());
    CHECK_RC(signal_file_write(self, "relative", &good, &err), RC_INVALID);
    CHECK_RC(signal_file_write(self, "/tmp/", &good, &err), RC_INVALID);
    CHECK_RC(signal_file_write(self, "/tmp/..", &good, &err), RC_INVALID);
}

TEST(who_has_ended_is_not_another_one_of_its_number)
{
    struct err err = ERR_INIT;
    pid_t pid = process_in(test_dir());
    CLEANUP(fd_closep) int held = hold(pid);
    (void)kill(pid, SIGKILL);
    CHECK(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT) == 0);
    CHECK(signal_file_write(held, "/tmp/x", &good, &err) !=
          RC_OK); /* its number is still its own */
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK_RC(signal_file_write(held, "/tmp/x", &good, &err), RC_NOT_FOUND);
}
