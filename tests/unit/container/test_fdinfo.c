#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/fdinfo.h"
#include "container/task.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct fdinfo *find(const struct fdinfo_list *l, int fd)
{
    for (size_t i = 0; i < l->n; i++)
        if (l->list[i].fd == fd)
            return &l->list[i];
    test_fail(__FILE__, __LINE__, "descriptor %d is not listed", fd);
}

static void read_own(struct fdinfo_list *l)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int self = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    CHECK(self >= 0);
    CHECK_OK(fdinfo_read(self, l, &err));
}

/* Look at `fd` (or skip the test if the kernel refused it), close it, and compare. */
static void check_kind(int fd, enum fd_kind kind)
{
    CLEANUP(fdinfo_done) struct fdinfo_list l = {0};
    if (fd < 0) {
        printf("# this kernel has no %s\n", fd_kind_name(kind));
        return;
    }
    read_own(&l);
    const struct fdinfo *f = find(&l, fd);
    (void)close(fd);
    if (f->kind != kind)
        test_fail(__FILE__, __LINE__, "'%s' is %s, not %s", f->target, fd_kind_name(f->kind),
                  fd_kind_name(kind));
}

TEST(each_kind_is_recognised)
{
    char params[120] = {0};
    sigset_t set;
    (void)sigemptyset(&set);
    check_kind(open("/", O_RDONLY | O_CLOEXEC), FD_DIRECTORY);
    check_kind(open("/dev/null", O_RDONLY | O_CLOEXEC), FD_CHARDEV);
    check_kind(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), FD_FILE);
    check_kind(open("/proc/self", O_PATH | O_NOFOLLOW | O_CLOEXEC), FD_SYMLINK);
    check_kind(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), FD_NAMESPACE);
    check_kind(posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), FD_TTY);
    check_kind(memfd_create("x", MFD_CLOEXEC), FD_MEMFD);
    check_kind((int)syscall(SYS_memfd_secret, O_CLOEXEC), FD_SECRET);
    check_kind(eventfd(0, EFD_CLOEXEC), FD_EVENTFD);
    check_kind(epoll_create1(EPOLL_CLOEXEC), FD_EPOLL);
    check_kind(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), FD_TIMERFD);
    check_kind(signalfd(-1, &set, SFD_CLOEXEC), FD_SIGNALFD);
    check_kind(inotify_init1(IN_CLOEXEC), FD_INOTIFY);
    check_kind((int)syscall(SYS_pidfd_open, getpid(), 0), FD_PIDFD);
    check_kind((int)syscall(SYS_userfaultfd, O_CLOEXEC | 1), FD_USERFAULTFD);
    check_kind((int)syscall(SYS_io_uring_setup, 4, params), FD_IO_URING);
    check_kind(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), FD_SOCKET);
}

TEST(pipes_and_named_fifos_differ)
{
    int ends[2];
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/fifo", test_dir());
    CHECK(pipe2(ends, O_CLOEXEC) == 0);
    (void)close(ends[1]);
    check_kind(ends[0], FD_PIPE);
    CHECK(mkfifo(path, 0600) == 0);
    check_kind(open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), FD_FIFO);
}

static void check_protocol(int domain, int type, const char *name)
{
    CLEANUP(fdinfo_done) struct fdinfo_list l = {0};
    int fd = socket(domain, type | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    read_own(&l);
    CHECK_STR(find(&l, fd)->protocol, name);
    (void)close(fd);
}

TEST(sockets_tell_their_protocol)
{
    check_protocol(AF_INET, SOCK_STREAM, "TCP");
    check_protocol(AF_INET6, SOCK_STREAM, "TCPv6");
    check_protocol(AF_INET, SOCK_DGRAM, "UDP");
    check_protocol(AF_NETLINK, SOCK_RAW, "NETLINK");
}

TEST(position_flags_locks_and_deletion_are_told)
{
    CLEANUP(fdinfo_done) struct fdinfo_list l = {0};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/a\nb", test_dir());
    CLEANUP(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, "hello", 5) == 5 && flock(fd, LOCK_EX) == 0 && unlink(path) == 0);
    read_own(&l);
    const struct fdinfo *f = find(&l, fd);
    CHECK_INT(f->kind, FD_FILE);
    CHECK(f->deleted && f->links == 0);
    CHECK_INT(f->size_bytes, 5);
    CHECK_INT(f->info.pos, 5);
    CHECK(f->info.flags & O_APPEND);
    CHECK_INT(f->info.locks, 1);
    CHECK(f->info.mnt_id > 0);
    CHECK(strstr(f->target, "/a\nb"));
}

TEST(a_pidfd_tells_its_process)
{
    CLEANUP(fdinfo_done) struct fdinfo_list l = {0};
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            (void)pause();
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    read_own(&l);
    CHECK_INT(find(&l, fd)->info.pidfd_pid, pid);
    (void)kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    fdinfo_done(&l);
    read_own(&l);
    CHECK_INT(find(&l, fd)->info.pidfd_pid, -1);
}

TEST(names_that_look_like_something_else_do_not_fool)
{
    dev_t none = makedev(0, 0);
    CHECK_INT(fd_kind_of("/memfd:x", S_IFREG, none), FD_FILE);
    CHECK_INT(fd_kind_of("/tmp/anon_inode:[io_uring]", S_IFREG, none), FD_FILE);
    CHECK_INT(fd_kind_of("/tmp/mnt:[4026531841]", S_IFREG, none), FD_FILE);
    CHECK_INT(fd_kind_of("mnt:[4026531841]", S_IFREG, none), FD_NAMESPACE);
    CHECK_INT(fd_kind_of("/tmp/pipe:[12]", S_IFIFO, none), FD_FIFO);
    CHECK_INT(fd_kind_of("anon_inode:[something new]", 0600, none), FD_ANON);
    CHECK_INT(fd_kind_of("anon_inode:bpf-map", 0600, none), FD_BPF);
    CHECK_INT(fd_kind_of("anon_inode:kvm-vcpu:0", 0600, none), FD_KVM);
    CHECK_INT(fd_kind_of("/dmabuf:", S_IFREG, none), FD_DMABUF);
    CHECK_INT(fd_kind_of("/dev/sda", S_IFBLK, makedev(8, 0)), FD_BLOCKDEV);
    CHECK_INT(fd_kind_of("/dev/nvidia0", S_IFCHR, makedev(195, 0)), FD_CHARDEV);
    CHECK_INT(fd_kind_of("/dev/ttyS0", S_IFCHR, makedev(4, 64)), FD_TTY);
    CHECK_INT(fd_kind_of("", 0, none), FD_UNKNOWN);
}

TEST(fdinfo_text_is_parsed)
{
    static const char text[] = "pos:\t12\nflags:\t02100002\nmnt_id:\t15\nino:\t99\n"
                               "lock:\t1: FLOCK  ADVISORY  WRITE 1 00:01:2 0 EOF\n"
                               "inotify wd:1 ino:2 sdev:3 mask:4\ninotify wd:2 ino:2\n"
                               "tfd:        4 events: 1\nPid:\t-1\nwhat: ever\nno colon\n";
    struct err err = ERR_INIT;
    struct fdinfo_text t;
    CHECK_OK(fdinfo_parse(text, strlen(text), &t, &err));
    CHECK_INT(t.pos, 12);
    CHECK_INT(t.flags, 02100002);
    CHECK_INT(t.mnt_id, 15);
    CHECK_INT(t.ino, 99);
    CHECK_INT(t.locks, 1);
    CHECK_INT(t.watches, 3);
    CHECK_INT(t.pidfd_pid, -1);
}

TEST(fdinfo_text_that_makes_no_sense_is_refused)
{
    static const char *const bad[] = {"pos:\tx\n",  "flags:\t9\n", "mnt_id:\t-2\n",
                                      "Pid:\t-2\n", "ino:\n",      "flags:\t77777777777777\n"};
    struct err err = ERR_INIT;
    struct fdinfo_text t = {.ino = 7};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(fdinfo_parse(bad[i], strlen(bad[i]), &t, &err), RC_CORRUPT);
    CHECK_INT(t.ino, 7);
    CHECK_OK(fdinfo_parse("", 0, &t, &err));
    CHECK_INT(t.mnt_id, -1);
}

TEST(a_process_that_has_ended_has_no_descriptors)
{
    struct err err = ERR_INIT;
    CLEANUP(fdinfo_done) struct fdinfo_list l = {0};
    char path[32];
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            (void)pause();
    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    CLEANUP(fd_closep) int task = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK_RC(fdinfo_read(task, &l, &err), RC_NOT_FOUND);
}
