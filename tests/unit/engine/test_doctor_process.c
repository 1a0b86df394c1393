/* Real processes that do the offending thing; each finding is compared with what CRIU says. */
#include "base/compiler.h"
#include "base/mem.h"
#include "engine/doctor.h"
#include "harness/test.h"
#include "offender.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/perf_event.h>
#include <linux/seccomp.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif
#define BYTES ((size_t)4096)

/* ---- the frame ---- */

static void need_root(void)
{
    if (geteuid() != 0)
        test_skip("machine: needs root");
}

static pid_t start(int (*act)(void *arg), void *arg)
{
    need_root();
    pid_t pid = offender_start(act, arg);
    if (pid == -ENOSYS || pid == -EPROTONOSUPPORT || pid == -EAFNOSUPPORT || pid == -EPERM ||
        pid == -ENOENT || pid == -EACCES || pid == -ENODEV)
        test_skip("kernel: lacks what this test needs");
    CHECK(pid > 0);
    return pid;
}

static const struct doctor_finding *find(const struct doctor_report *r, const char *id)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->list[i].id, id) == 0)
            return &r->list[i];
    return NULL;
}

static const char *all_text(const struct doctor_report *r)
{
    static char text[4096];
    text[0] = '\0';
    for (size_t i = 0; i < r->n; i++) {
        size_t n = strlen(text);
        (void)snprintf(text + n, sizeof(text) - n, "[%s %s: %s] ",
                       doctor_level_name(r->list[i].level), r->list[i].id, r->list[i].what);
    }
    return text;
}

static void examine_with(struct doctor_process p, struct doctor_report *r)
{
    struct err err = ERR_INIT;
    CHECK_OK(doctor_check_process(&p, r, &err));
}

static void criu_says(bool saves, const struct doctor_process *p)
{
    char said[512];
    if (!criu_is_here())
        return;
    bool could = criu_saves(p, said, sizeof(said));
    if (could != saves)
        test_fail(__FILE__, __LINE__, "CRIU %s: %s", could ? "could save it" : "could not save it",
                  said);
}

/* The doctor must name `id` as a reason, with a remedy, and CRIU must fail. */
static void expect_fail_with(struct doctor_process p, const char *id, const char *in_what)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine_with(p, &r);
    const struct doctor_finding *f = find(&r, id);
    if (!f || f->level != DOCTOR_FAIL || !strstr(f->what, in_what))
        test_fail(__FILE__, __LINE__, "no failure '%s' with '%s': %s", id, in_what, all_text(&r));
    CHECK(f->why && f->remedy && strlen(f->remedy) > 10);
    CHECK(f->remedy[strlen(f->remedy) - 1] == '.');
    CHECK_INT(doctor_worst(&r), DOCTOR_FAIL);
    CHECK(!find(&r, "process"));
    criu_says(false, &p);
}

static void expect_fail(pid_t pid, const char *id, const char *in_what)
{
    expect_fail_with((struct doctor_process){.pid = pid}, id, in_what);
}

/* Nothing against it, and CRIU agrees; `id` NULL or a warning that there must be. */
static void expect_fine_with(struct doctor_process p, const char *id)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine_with(p, &r);
    if (doctor_worst(&r) == DOCTOR_FAIL || !find(&r, "process"))
        test_fail(__FILE__, __LINE__, "not fine: %s", all_text(&r));
    if (id && (!find(&r, id) || find(&r, id)->level != DOCTOR_WARN))
        test_fail(__FILE__, __LINE__, "no warning '%s': %s", id, all_text(&r));
    if (!id && doctor_worst(&r) != DOCTOR_OK)
        test_fail(__FILE__, __LINE__, "not fine: %s", all_text(&r));
    criu_says(true, &p);
}

static void expect_fine(pid_t pid, const char *warning)
{
    expect_fine_with((struct doctor_process){.pid = pid}, warning);
}

/* ---- what is fine ---- */

TEST(a_plain_process_is_fine)
{
    pid_t pid = start(NULL, NULL);
    expect_fine(pid, NULL);
    offender_end(pid);
}

static int harmless(void *arg)
{
    (void)arg;
    int pair[2], pipes[2];
    sigset_t set;
    (void)sigemptyset(&set);
    struct epoll_event ev = {.events = EPOLLIN};
    int e = epoll_create1(EPOLL_CLOEXEC), event = eventfd(1, EFD_CLOEXEC);
    if (e < 0 || event < 0 || epoll_ctl(e, EPOLL_CTL_ADD, event, &ev) < 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
        pipe2(pipes, O_CLOEXEC) < 0 || timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC) < 0 ||
        signalfd(-1, &set, SFD_CLOEXEC) < 0 || memfd_create("named", MFD_CLOEXEC) < 0 ||
        socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0) < 0 ||
        socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 ||
        socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 ||
        socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP) < 0 ||
        socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0) < 0 ||
        open("/dev/zero", O_RDONLY | O_CLOEXEC) < 0 || open("/", O_RDONLY | O_CLOEXEC) < 0 ||
        open("/proc/self/status", O_RDONLY | O_CLOEXEC) < 0)
        return errno;
    return 0;
}

TEST(what_programs_usually_have_open_is_fine)
{
    pid_t pid = start(harmless, NULL);
    expect_fine(pid, NULL);
    offender_end(pid);
}

static int have_children(void *arg)
{
    (void)arg;
    pid_t child = offender_child(NULL, NULL);
    pid_t zombie = fork();
    if (zombie == 0)
        _exit(7);
    int fd = (int)syscall(SYS_pidfd_open, child, 0);
    siginfo_t info;
    (void)waitid(P_PID, (id_t)zombie, &info, WEXITED | WNOWAIT);
    return fd < 0 ? errno : 0;
}

TEST(children_zombies_and_pidfds_of_them_are_fine)
{
    pid_t pid = start(have_children, NULL);
    expect_fine(pid, NULL);
    offender_end(pid);
}

static int filter_calls(void *arg)
{
    (void)arg;
    struct sock_filter allow[] = {BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog program = {.len = 1, .filter = allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        return errno;
    return 0;
}

TEST(a_seccomp_filter_is_fine_for_root)
{
    pid_t pid = start(filter_calls, NULL);
    expect_fine(pid, NULL);
    offender_end(pid);
}

static int be_nobody(void *arg)
{
    (void)arg;
    return setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0 ? errno : 0;
}

static bool may_read_limits_of_others(void)
{
    struct err err = ERR_INIT;
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    struct doctor_machine m = {0};
    CHECK_OK(doctor_check_machine(&m, &r, &err));
    for (size_t i = 0; i < r.n; i++)
        if (strcmp(r.list[i].what, "CAP_SYS_RESOURCE is missing") == 0)
            return false;
    return true;
}

TEST(a_process_of_another_user_is_fine_with_our_criu)
{
    pid_t pid = start(be_nobody, NULL);
    expect_fine(pid, may_read_limits_of_others() ? NULL : "other-user-limits");
    offender_end(pid);
}

/* As a user without rights; the exit status is 0 when all was as it should be. */
static void look_as_nobody(pid_t pid)
{
    struct err err = ERR_INIT;
    struct doctor_process p = {.pid = pid};
    struct doctor_report r = DOCTOR_REPORT_INIT;
    if (setgroups(0, NULL) < 0 || setresgid(65534, 65534, 65534) < 0 ||
        setresuid(65534, 65534, 65534) < 0 || doctor_check_process(&p, &r, &err) != RC_OK)
        _exit(1);
    size_t told = 0;
    for (size_t i = 0; i < r.n; i++)
        told += strcmp(r.list[i].id, "other-user") == 0;
    const struct doctor_finding *f = find(&r, "other-user");
    bool once = told == 1 && strstr(f->what, "(and 1 more)") && !find(&r, "denied");
    doctor_report_done(&r);
    _exit(once ? 0 : 2);
}

TEST(a_tree_of_another_user_is_told_of_once)
{
    int status = -1;
    pid_t pid = start(have_children, NULL);
    pid_t nobody = fork();
    if (nobody == 0)
        look_as_nobody(pid);
    CHECK(waitpid(nobody, &status, 0) == nobody);
    CHECK_INT(status, 0);
    offender_end(pid);
}

static int seal(void *arg)
{
    (void)arg;
    void *p = mmap(NULL, BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return syscall(462, p, BYTES, 0) < 0 ? errno : 0; /* mseal */
}

TEST(sealed_memory_is_worth_a_warning)
{
    pid_t pid = start(seal, NULL);
    expect_fine(pid, "mseal");
    offender_end(pid);
}

TEST(a_quick_look_leaves_the_flags_of_memory_out)
{
    pid_t pid = start(seal, NULL);
    expect_fine_with((struct doctor_process){.pid = pid, .quick = true}, NULL);
    offender_end(pid);
}

TEST(a_stopped_process_is_fine)
{
    pid_t pid = start(NULL, NULL);
    int status = 0;
    CHECK(kill(pid, SIGSTOP) == 0);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid);
    expect_fine(pid, NULL);
    offender_end(pid);
}

/* ---- descriptors and memory ---- */

static int use_io_uring(void *arg)
{
    (void)arg;
    char params[120] = {0};
    long fd = syscall(SYS_io_uring_setup, 4, params);
    return fd < 0 ? errno : 0;
}

TEST(io_uring_is_found)
{
    pid_t pid = start(use_io_uring, NULL);
    expect_fail(pid, "io-uring", "io_uring");
    offender_end(pid);
}

static int map_io_uring(void *arg)
{
    (void)arg;
    char params[120] = {0};
    long fd = syscall(SYS_io_uring_setup, 4, params);
    if (fd < 0)
        return errno;
    void *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, (int)fd, 0);
    (void)close((int)fd);
    return p == MAP_FAILED ? errno : 0;
}

TEST(a_mapped_ring_is_found_when_its_descriptor_is_closed)
{
    pid_t pid = start(map_io_uring, NULL);
    expect_fail(pid, "io-uring", "mapped ring");
    offender_end(pid);
}

static int keep_secret(void *arg)
{
    int fd = (int)syscall(SYS_memfd_secret, 0);
    if (fd < 0 || ftruncate(fd, (off_t)BYTES) < 0)
        return errno;
    char *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        return errno;
    p[0] = 's';
    if (arg)
        (void)close(fd);
    return 0;
}

TEST(secret_memory_is_found)
{
    pid_t pid = start(keep_secret, NULL);
    expect_fail(pid, "memfd-secret", "memfd_secret");
    offender_end(pid);
}

TEST(secret_memory_is_found_when_its_descriptor_is_closed)
{
    int closed = 1;
    pid_t pid = start(keep_secret, &closed);
    expect_fail(pid, "memfd-secret", "secret memory");
    offender_end(pid);
}

static int use_mptcp(void *arg)
{
    (void)arg;
    return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_MPTCP) < 0 ? errno : 0;
}

TEST(multipath_tcp_is_found)
{
    pid_t pid = start(use_mptcp, NULL);
    expect_fail(pid, "mptcp", "multipath TCP");
    offender_end(pid);
}

static int use_vsock(void *arg)
{
    (void)arg;
    return socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0) < 0 ? errno : 0;
}

TEST(other_socket_families_are_found)
{
    pid_t pid = start(use_vsock, NULL);
    expect_fail(pid, "socket-kind", "AF_VSOCK");
    offender_end(pid);
}

static int use_userfaultfd(void *arg)
{
    (void)arg;
    return syscall(SYS_userfaultfd, O_CLOEXEC) < 0 ? errno : 0;
}

TEST(userfaultfd_is_found)
{
    pid_t pid = start(use_userfaultfd, NULL);
    expect_fail(pid, "userfaultfd", "userfaultfd");
    offender_end(pid);
}

static int count_events(void *arg)
{
    (void)arg;
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE,
                                   .size = sizeof(attr),
                                   .config = PERF_COUNT_SW_TASK_CLOCK,
                                   .exclude_kernel = 1};
    return syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0) < 0 ? errno : 0;
}

TEST(performance_counters_are_found)
{
    pid_t pid = start(count_events, NULL);
    expect_fail(pid, "perf", "perf_event");
    offender_end(pid);
}

static int load_bpf(void *arg)
{
    (void)arg;
    union bpf_attr attr = {
        .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1};
    return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof(attr)) < 0 ? errno : 0;
}

TEST(bpf_maps_are_found)
{
    pid_t pid = start(load_bpf, NULL);
    expect_fail(pid, "bpf", "bpf");
    offender_end(pid);
}

static int open_it(void *arg)
{
    return open(arg, O_RDWR | O_CLOEXEC | O_NONBLOCK) < 0 ? errno : 0;
}

TEST(an_open_device_is_found)
{
    char path[] = "/dev/fuse";
    pid_t pid = start(open_it, path);
    expect_fail(pid, "device", "/dev/fuse");
    offender_end(pid);
}

static int open_packet_pipe(void *arg)
{
    (void)arg;
    int ends[2];
    return pipe2(ends, O_CLOEXEC | O_DIRECT) < 0 ? errno : 0;
}

TEST(a_pipe_in_packet_mode_is_found)
{
    pid_t pid = start(open_packet_pipe, NULL);
    expect_fail(pid, "packet-pipe", "packet mode");
    offender_end(pid);
}

static int hold_process(void *arg)
{
    return syscall(SYS_pidfd_open, *(pid_t *)arg, 0) < 0 ? errno : 0;
}

TEST(a_pidfd_of_a_process_outside_is_found)
{
    pid_t outside = getpid(), pid = start(hold_process, &outside);
    expect_fail(pid, "pidfd", "which is not below it");
    offender_end(pid);
}

static int delete_file(void *arg)
{
    static char bytes[2 << 20];
    int fd = open(arg, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    memset(bytes, 'x', sizeof(bytes));
    if (fd < 0 || write(fd, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes) || fsync(fd) < 0)
        return errno;
    return unlink(arg) < 0 ? errno : 0;
}

static int delete_mapped_file(void *arg)
{
    int rc = delete_file(arg);
    if (rc)
        return rc;
    void *p = mmap(NULL, 2 << 20, PROT_READ, MAP_SHARED, 4, 0);
    (void)close(4);
    return p == MAP_FAILED ? errno : 0;
}

TEST(a_deleted_file_over_the_limit_is_found)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/deleted", test_dir());
    pid_t pid = start(delete_file, path);
    expect_fail_with((struct doctor_process){.pid = pid, .ghost_limit = 1 << 20}, "deleted-file",
                     "2 MiB open");
    expect_fine(pid, NULL);
    offender_end(pid);
}

TEST(a_deleted_mapped_file_over_the_limit_is_found)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/deleted", test_dir());
    pid_t pid = start(delete_mapped_file, path);
    expect_fail_with((struct doctor_process){.pid = pid, .ghost_limit = 1 << 20}, "deleted-file",
                     "2 MiB mapped");
    expect_fine(pid, NULL);
    offender_end(pid);
}

static int attach_shm(void *arg)
{
    (void)arg;
    int id = shmget(IPC_PRIVATE, BYTES, IPC_CREAT | 0600);
    if (id < 0)
        return errno;
    const void *p = shmat(id, NULL, 0);
    (void)shmctl(id, IPC_RMID, NULL);
    return p == (void *)-1 ? errno : 0;
}

TEST(sysv_memory_of_the_machine_is_found)
{
    pid_t pid = start(attach_shm, NULL);
    expect_fail(pid, "sysv-shm", "SysV shared memory");
    offender_end(pid);
}

static int attach_own_shm(void *arg)
{
    return unshare(CLONE_NEWIPC) < 0 ? errno : attach_shm(arg);
}

TEST(sysv_memory_of_an_own_namespace_is_fine)
{
    pid_t pid = start(attach_own_shm, NULL);
    expect_fine(pid, NULL);
    offender_end(pid);
}

/* ---- connections ---- */

static int listen_on(struct sockaddr_in *address)
{
    socklen_t len = sizeof(*address);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *address =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)address, sizeof(*address)) < 0 || listen(fd, 4) < 0 ||
        getsockname(fd, (struct sockaddr *)address, &len) < 0)
        return -1;
    return fd;
}

static int connect_to(void *arg)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 || connect(fd, arg, sizeof(struct sockaddr_in)) < 0 ? errno : 0;
}

TEST(a_connection_to_the_outside_is_worth_a_warning)
{
    struct sockaddr_in address;
    int fd = listen_on(&address);
    CHECK(fd >= 0);
    pid_t pid = start(connect_to, &address);
    expect_fine(pid, "tcp-outside");
    (void)close(fd);
    offender_end(pid);
}

static int connect_to_itself(void *arg)
{
    (void)arg;
    struct sockaddr_in address;
    int fd = listen_on(&address);
    if (fd < 0)
        return errno;
    int rc = connect_to(&address);
    return rc ? rc : accept4(fd, NULL, NULL, SOCK_CLOEXEC) < 0 ? errno : 0;
}

TEST(a_connection_inside_the_tree_is_fine)
{
    pid_t pid = start(connect_to_itself, NULL);
    expect_fine(pid, NULL);
    offender_end(pid);
}

static int let_wait(void *arg)
{
    (void)arg;
    struct sockaddr_in address;
    return listen_on(&address) < 0 ? errno : connect_to(&address);
}

TEST(a_connection_that_nobody_accepted_is_found)
{
    pid_t pid = start(let_wait, NULL);
    expect_fail(pid, "tcp-pending", "1 connections waiting");
    expect_fine_with((struct doctor_process){.pid = pid, .skip_in_flight = true}, "tcp-dropped");
    offender_end(pid);
}

/* ---- what a process is ---- */

TEST(a_traced_process_is_found)
{
    pid_t pid = start(NULL, NULL);
    CHECK(ptrace(PTRACE_SEIZE, pid, 0, 0) == 0);
    char by[64];
    (void)snprintf(by, sizeof(by), "traced by process %d", (int)getpid());
    expect_fail(pid, "traced", by);
    offender_end(pid);
}

static void *do_nothing(void *arg)
{
    offender_wait();
    return arg;
}

static int end_main_thread(void *tell)
{
    pthread_t thread;
    int code = 0;
    if (pthread_create(&thread, NULL, do_nothing, NULL))
        return EAGAIN;
    if (tell)
        (void)!write(3, &code, sizeof(code));
    (void)syscall(SYS_exit, 0); /* of this thread only */
    return 0;
}

TEST(a_process_without_its_main_thread_is_found)
{
    pid_t pid = start(end_main_thread, (char[]){"yes"});
    (void)usleep(20000);
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine_with((struct doctor_process){.pid = pid}, &r);
    CHECK(find(&r, "zombie-threads")); /* of which CRIU can enter no namespace */
    offender_end(pid);
}

static int have_headless_child(void *arg)
{
    (void)arg;
    (void)offender_child(end_main_thread, NULL);
    return 0;
}

TEST(a_child_without_its_main_thread_is_found)
{
    pid_t pid = start(have_headless_child, NULL);
    (void)usleep(50000);
    expect_fail(pid, "zombie-threads", "without its main thread");
    offender_end(pid);
}

TEST(a_process_that_has_ended_is_found)
{
    need_root();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT) == 0);
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine_with((struct doctor_process){.pid = pid}, &r);
    CHECK(find(&r, "zombie"));
    offender_end(pid);
}

TEST(no_such_process_is_an_error)
{
    struct err err = ERR_INIT;
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    struct doctor_process p = {.pid = 0x3fffffff};
    CHECK_RC(doctor_check_process(&p, &r, &err), RC_NOT_FOUND);
    CHECK_STR(err.msg, "no process 1073741823");
    p.pid = -1;
    CHECK_RC(doctor_check_process(&p, &r, &err), RC_NOT_FOUND);
    CHECK_INT(r.n, 0);
}

TEST(no_proc_file_system_is_an_error)
{
    struct err err = ERR_INIT;
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    struct doctor_process p = {.pid = 1, .proc = test_dir()};
    CHECK_RC(doctor_check_process(&p, &r, &err), RC_INVALID);
    CHECK(strstr(err.msg, "is no proc file system"));
}

TEST(init_and_chrek_itself_are_found)
{
    need_root();
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CLEANUP(doctor_report_done) struct doctor_report own = DOCTOR_REPORT_INIT;
    examine_with((struct doctor_process){.pid = 1, .quick = true}, &r);
    CHECK(find(&r, "init"));
    CHECK(find(&r, "ourselves")); /* it is below init */
    examine_with((struct doctor_process){.pid = getpid()}, &own);
    CHECK(find(&own, "ourselves"));
}

static int wait_in_vfork(void *arg)
{
    (void)arg;
    int code = 0;
    (void)!write(3, &code, sizeof(code));
    pid_t pid = (pid_t)syscall(SYS_clone, CLONE_VFORK | SIGCHLD, 0, 0, 0, 0);
    if (pid == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        offender_wait();
    }
    return 0;
}

TEST(a_process_in_vfork_is_found)
{
    pid_t pid = start(wait_in_vfork, NULL);
    (void)usleep(50000);
    expect_fail(pid, "vfork", "is starting a child");
    offender_end(pid);
}

static int nested_pid_namespace(void *arg)
{
    (void)arg;
    if (unshare(CLONE_NEWPID) < 0)
        return errno;
    (void)offender_child(NULL, NULL);
    return 0;
}

TEST(a_namespace_of_a_child_is_found)
{
    pid_t pid = start(nested_pid_namespace, NULL);
    expect_fail(pid, "nested-namespace", "PID namespace for its children");
    offender_end(pid);
}

static int unshare_some(void *arg)
{
    return unshare(*(int *)arg) < 0 ? errno : 0;
}

static int child_unshares(void *arg)
{
    (void)offender_child(unshare_some, arg);
    (void)usleep(50000);
    return 0;
}

static void check_nested(int flag, const char *in_what)
{
    pid_t pid = start(child_unshares, &flag);
    expect_fail(pid, "nested-namespace", in_what);
    offender_end(pid);
}

TEST(an_ipc_namespace_of_a_child_is_found)
{
    check_nested(CLONE_NEWIPC, "ipc namespace of its own");
}

TEST(a_uts_namespace_of_a_child_is_found)
{
    check_nested(CLONE_NEWUTS, "uts namespace of its own");
}

TEST(a_user_namespace_of_a_child_is_found)
{
    if (TEST_EXTRA_THREAD)
        test_skip("machine: a process with threads cannot enter a user namespace");
    check_nested(CLONE_NEWUSER, "user namespace of its own");
}

TEST(a_user_namespace_without_the_others_is_found)
{
    if (TEST_EXTRA_THREAD)
        test_skip("machine: a process with threads cannot enter a user namespace");
    int flag = CLONE_NEWUSER;
    pid_t pid = start(unshare_some, &flag);
    expect_fail(pid, "user-namespace", "user namespace of its own");
    offender_end(pid);
}

TEST(a_mount_namespace_of_a_child_is_worth_a_warning)
{
    int flag = CLONE_NEWNS;
    pid_t pid = start(child_unshares, &flag);
    expect_fine(pid, "nested-mounts");
    offender_end(pid);
}

TEST(a_network_namespace_of_a_child_is_worth_a_warning)
{
    int flag = CLONE_NEWNET;
    pid_t pid = start(child_unshares, &flag);
    expect_fine(pid, "nested-network");
    offender_end(pid);
}

/* ---- containers ---- */

struct in_container {
    bool session, same_program;
    pid_t *inner; /* shared with the test */
};

static int make_container(void *arg)
{
    const struct in_container *how = arg;
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0)
        return errno;
    pid_t init = fork();
    if (init == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL);
        if (mount("proc", "/proc", "proc", 0, NULL) < 0)
            _exit(1);
        for (int i = 0; i < 40; i++) { /* clear of the numbers that helpers take */
            pid_t pid = fork();
            if (pid == 0)
                _exit(0);
            (void)waitpid(pid, NULL, 0);
        }
        pid_t app = fork();
        if (app == 0) {
            (void)close(3);
            if (how->session)
                (void)setsid();
            __atomic_store_n(how->inner, 1, __ATOMIC_SEQ_CST);
            if (how->same_program)
                offender_wait();
            offender_exec();
        }
        offender_wait();
    }
    while (!__atomic_load_n(how->inner, __ATOMIC_SEQ_CST))
        (void)usleep(1000);
    return 0;
}

/* The only child of `pid`. */
static pid_t child_of(pid_t pid)
{
    char path[64], text[32] = "";
    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    (void)close(fd);
    return (pid_t)strtoul(text, NULL, 10);
}

static pid_t start_container(bool session, bool same_program)
{
    struct in_container how = {.session = session, .same_program = same_program};
    how.inner = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(how.inner != MAP_FAILED);
    pid_t pid = start(make_container, &how);
    CHECK(munmap(how.inner, BYTES) == 0);
    (void)usleep(20000); /* until it has become the other program */
    return pid;
}

TEST(a_program_in_a_container_is_fine)
{
    pid_t pid = start_container(true, false), app = child_of(child_of(pid));
    expect_fine(app, NULL);
    offender_end(pid);
}

TEST(a_program_from_outside_of_the_container_is_found)
{
    pid_t pid = start_container(true, true), app = child_of(child_of(pid));
    expect_fail(app, "foreign-mount", "its program");
    offender_end(pid);
}

TEST(the_first_process_of_a_container_is_found)
{
    pid_t pid = start_container(true, false);
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine_with((struct doctor_process){.pid = child_of(pid)}, &r);
    CHECK(find(&r, "pid-1") && find(&r, "pid-1")->level == DOCTOR_FAIL);
    CLEANUP(doctor_report_done) struct doctor_report whole = DOCTOR_REPORT_INIT;
    examine_with((struct doctor_process){.pid = child_of(pid), .container = true}, &whole);
    CHECK(!find(&whole, "pid-1")); /* it is saved with its namespaces */
    offender_end(pid);
}

TEST(a_session_from_outside_the_container_is_found)
{
    pid_t pid = start_container(false, false), app = child_of(child_of(pid));
    expect_fail(app, "session", "session from outside");
    offender_end(pid);
}

struct foreign {
    const char *dir;
    bool directory;
};

/* A file on a mount that is unmounted lazily is on no mount that the process has. */
static int open_foreign(void *arg)
{
    const struct foreign *f = arg;
    char path[128];
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("tmpfs", f->dir, "tmpfs", 0, NULL) < 0)
        return errno;
    (void)snprintf(path, sizeof(path), "%s/file", f->dir);
    if (f->directory ? chdir(f->dir) < 0 : open(path, O_CREAT | O_RDWR, 0600) < 0)
        return errno;
    if (umount2(f->dir, MNT_DETACH) < 0)
        return errno;
    offender_exec();
}

TEST(a_file_on_a_foreign_mount_is_found)
{
    struct foreign f = {test_dir(), false};
    pid_t pid = start(open_foreign, &f);
    expect_fail(pid, "foreign-mount", "descriptor");
    offender_end(pid);
}

TEST(a_working_directory_on_a_foreign_mount_is_found)
{
    struct foreign f = {test_dir(), true};
    pid_t pid = start(open_foreign, &f);
    expect_fail(pid, "foreign-mount", "its working directory");
    offender_end(pid);
}

/* A node agent sees the machine's processes through a proc file system mounted elsewhere. */
static int look_through_other_proc(void *arg)
{
    char path[128];
    struct err err = ERR_INIT;
    struct doctor_report r = DOCTOR_REPORT_INIT;
    pid_t *pid = arg;
    (void)snprintf(path, sizeof(path), "%s/proc", test_dir());
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mkdir(path, 0700) < 0 || mount("proc", path, "proc", 0, NULL) < 0)
        return errno;
    struct doctor_process p = {.pid = *pid, .proc = path};
    if (doctor_check_process(&p, &r, &err) != RC_OK)
        return EIO;
    int rc = find(&r, "io-uring") ? 0 : ENOEXEC;
    doctor_report_done(&r);
    return rc;
}

TEST(another_proc_file_system_can_be_looked_through)
{
    pid_t pid = start(use_io_uring, NULL);
    pid_t looker = start(look_through_other_proc, &pid);
    offender_end(looker);
    offender_end(pid);
}

/* ---- reports ---- */

static int use_two_rings(void *arg)
{
    int rc = use_io_uring(arg);
    if (!rc)
        rc = use_io_uring(arg);
    return rc ? rc : use_io_uring(arg);
}

TEST(findings_of_one_kind_are_counted_per_process)
{
    pid_t pid = start(use_two_rings, NULL);
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine_with((struct doctor_process){.pid = pid}, &r);
    CHECK_INT(r.n, 1);
    CHECK_INT(r.list[0].more, 2);
    CHECK(strstr(r.list[0].what, "(and 2 more)"));
    CHECK(doctor_first(&r, DOCTOR_FAIL) == &r.list[0]);
    CHECK(!doctor_first(&r, DOCTOR_OK));
    offender_end(pid);
}

TEST(a_child_is_looked_at_too)
{
    need_root();
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        pid_t child = offender_start(use_io_uring, NULL);
        if (child < 0)
            _exit(0);
        offender_wait();
    }
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    for (int i = 0; i < 200 && !find(&r, "io-uring"); i++) {
        doctor_report_done(&r);
        (void)usleep(10000);
        examine_with((struct doctor_process){.pid = pid}, &r);
    }
    const struct doctor_finding *f = find(&r, "io-uring");
    offender_end(pid);
    CHECK(f && f->pid != pid);
}
