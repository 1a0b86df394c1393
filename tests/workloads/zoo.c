/* One of everything that a process tree can hold, checked for its state once a round.
 *
 * zoo DIR [SHM_NAME]: sets all up, prints "ready", then checks for ever: "round N ok", or
 * "bad: WHAT" and exit status 1.  DIR: on a real file system, for files that are named. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MB (1 << 20)

static void need(int good, const char *what)
{
    if (good)
        return;
    printf("bad: %s (%s)\n", what, strerror(errno));
    fflush(stdout);
    _exit(1);
}

static int pipe_fds[2], pair[2], dgram[2], listener, event, epoll, timer, watch, deleted, locked;
static int memfd, large, fifo;
static char *anon, *shared, *posix_shm, *sysv_shm, *memory, *private_file;
static sem_t *named_sem, *plain_sem;
static int sysv_sem, sysv_msg;
static _Atomic long beats;
static volatile sig_atomic_t alarms, rt_signals, timer_signals;
static timer_t posix_timer;
static pid_t child;
static char dir[512];

static void on_alarm(int s)
{
    (void)s;
    alarms++;
}

static void on_rt(int s)
{
    (void)s;
    rt_signals++;
}

static void on_timer(int s)
{
    (void)s;
    timer_signals++;
}

static void *thread(void *arg)
{
    (void)arg;
    for (;;) {
        beats++;
        usleep(5000);
    }
    return NULL;
}

static char *named(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static int make_file(const char *name, size_t size, char fill)
{
    int fd = open(named(name), O_RDWR | O_CREAT | O_TRUNC, 0600);
    char block[4096];
    memset(block, fill, sizeof(block));
    need(fd >= 0, name);
    for (size_t at = 0; at < size; at += sizeof(block))
        need(write(fd, block, sizeof(block)) == sizeof(block), name);
    return fd;
}

static void make_channels(void)
{
    need(pipe(pipe_fds) == 0 && write(pipe_fds[1], "in the pipe", 11) == 11, "pipe");
    need(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0 && write(pair[0], "stream", 6) == 6,
         "pair");
    need(socketpair(AF_UNIX, SOCK_DGRAM, 0, dgram) == 0 && write(dgram[0], "d1", 2) == 2 &&
             write(dgram[0], "d22", 3) == 3,
         "dgram");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", named("sock"));
    unlink(a.sun_path);
    listener = socket(AF_UNIX, SOCK_STREAM, 0);
    need(bind(listener, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(listener, 8) == 0,
         "listen");
    unlink(named("fifo"));
    need(mkfifo(named("fifo"), 0600) == 0, "mkfifo");
    fifo = open(named("fifo"), O_RDWR | O_NONBLOCK);
    need(fifo >= 0 && write(fifo, "fifo", 4) == 4, "fifo");
}

static void make_memory(const char *shm_name)
{
    anon = mmap(NULL, 4 * MB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = shm_open(shm_name, O_RDWR | O_CREAT, 0600);
    need(fd >= 0 && ftruncate(fd, MB) == 0, "shm_open");
    posix_shm = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    int id = shmget(IPC_PRIVATE, MB, IPC_CREAT | 0600);
    need(id >= 0, "shmget");
    sysv_shm = shmat(id, NULL, 0);
    memfd = memfd_create("zoo", 0);
    need(ftruncate(memfd, MB) == 0, "memfd");
    memory = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    fd = make_file("private", MB, 'p');
    private_file = mmap(NULL, MB, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    memset(anon, 'a', 4 * MB);
    memset(shared, 's', MB);
    memset(posix_shm, 'x', MB);
    memset(sysv_shm, 'v', MB);
    memset(memory, 'm', MB);
    memset(private_file + 4096, 'q', 4096);
    need(mprotect(anon + MB, 4096, PROT_READ) == 0, "mprotect");
    need(munmap(anon + 2 * MB, 4096) == 0, "munmap");
    char name[300];
    snprintf(name, sizeof(name), "%s-sem", shm_name);
    named_sem = sem_open(name, O_CREAT, 0600, 3);
    need(named_sem != SEM_FAILED, "sem_open");
    plain_sem = (sem_t *)(shared + 4096);
    need(sem_init(plain_sem, 1, 5) == 0, "sem_init");
}

static void make_ipc(void)
{
    struct {
        long type;
        char text[8];
    } message = {7, "message"};
    sysv_sem = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
    need(sysv_sem >= 0 && semctl(sysv_sem, 1, SETVAL, 42) == 0, "semget");
    sysv_msg = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    need(sysv_msg >= 0 && msgsnd(sysv_msg, &message, 8, 0) == 0, "msgget");
}

static void make_timers(void)
{
    struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, NULL);
    sa.sa_handler = on_rt;
    sigaction(SIGRTMIN + 1, &sa, NULL);
    sa.sa_handler = on_timer;
    sigaction(SIGRTMIN + 2, &sa, NULL);
    struct itimerval it = {{0, 20000}, {0, 20000}};
    need(setitimer(ITIMER_REAL, &it, NULL) == 0, "setitimer");
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 2};
    struct itimerspec ts = {{0, 30000000}, {0, 30000000}};
    need(timer_create(CLOCK_MONOTONIC, &ev, &posix_timer) == 0 &&
             timer_settime(posix_timer, 0, &ts, NULL) == 0,
         "timer_create");
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGRTMIN + 1);
    need(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0, "sigprocmask");
    raise(SIGRTMIN + 1); /* stays pending for ever */
    raise(SIGRTMIN + 1);
}

static void make_events(void)
{
    event = eventfd(17, EFD_NONBLOCK);
    timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec ts = {{0, 10000000}, {0, 10000000}};
    need(timerfd_settime(timer, 0, &ts, NULL) == 0, "timerfd");
    epoll = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.u64 = 99};
    need(epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &e) == 0, "epoll");
    watch = inotify_init1(IN_NONBLOCK);
    need(inotify_add_watch(watch, dir, IN_CREATE) >= 0, "inotify");
}

static void make_files(void)
{
    deleted = make_file("deleted", MB, 'd');
    need(unlink(named("deleted")) == 0, "unlink");
    locked = make_file("locked", 4096, 'l');
    need(flock(locked, LOCK_EX) == 0, "flock");
    int posix = make_file("posix-locked", 4096, 'l');
    struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
    need(fcntl(posix, F_SETLK, &fl) == 0, "fcntl lock");
    large = shm_open("/zoo-large", O_RDWR | O_CREAT, 0600);
    need(large >= 0 && ftruncate(large, 64 * MB) == 0, "large");
    for (int i = 0; i < 16; i++)
        need(pwrite(large, "large", 5, (off_t)i * 4 * MB) == 5, "large");
}

static void all_are(const char *p, char c, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        need(p[i] == c, what);
}

static void check_memory(void)
{
    all_are(anon, 'a', 2 * MB, "anonymous memory");
    all_are(shared + 8192, 's', MB - 8192, "shared memory");
    all_are(posix_shm + 8, 'x', MB - 8, "POSIX shared memory");
    all_are(sysv_shm, 'v', MB, "SysV shared memory");
    all_are(memory, 'm', MB, "memfd");
    all_are(private_file, 'p', 4096, "private file mapping");
    all_are(private_file + 4096, 'q', 4096, "private file mapping, written");
    int value = 0;
    need(sem_getvalue(named_sem, &value) == 0 && value == 3, "named semaphore");
    need(sem_getvalue(plain_sem, &value) == 0 && value == 5, "semaphore in shared memory");
    char text[8] = "";
    for (int i = 0; i < 16; i++)
        need(pread(large, text, 5, (off_t)i * 4 * MB) == 5 && !memcmp(text, "large", 5), "large");
}

/* What is in a channel is taken out, compared, and put back. */
static void check_channels(void)
{
    char b[64] = "";
    need(read(pipe_fds[0], b, 64) == 11 && !memcmp(b, "in the pipe", 11) &&
             write(pipe_fds[1], b, 11) == 11,
         "pipe content");
    need(read(pair[1], b, 64) == 6 && !memcmp(b, "stream", 6) && write(pair[0], b, 6) == 6, "pair");
    need(read(dgram[1], b, 64) == 2 && read(dgram[1], b, 64) == 3 && !memcmp(b, "d22", 3) &&
             write(dgram[0], "d1", 2) == 2 && write(dgram[0], "d22", 3) == 3,
         "datagrams");
    need(read(fifo, b, 64) == 4 && !memcmp(b, "fifo", 4) && write(fifo, b, 4) == 4, "fifo");
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof(a.sun_path), "%s", named("sock"));
    int c = socket(AF_UNIX, SOCK_STREAM, 0);
    need(connect(c, (struct sockaddr *)&a, sizeof(a)) == 0, "connect to the listener");
    int s = accept(listener, NULL, NULL);
    need(s >= 0 && write(c, "hi", 2) == 2 && read(s, b, 64) == 2, "accept");
    close(c);
    close(s);
}

static void check_ipc(void)
{
    struct {
        long type;
        char text[8];
    } m;
    need(semctl(sysv_sem, 1, GETVAL) == 42, "SysV semaphore");
    need(msgrcv(sysv_msg, &m, 8, 7, IPC_NOWAIT) == 8 && !memcmp(m.text, "message", 8) &&
             msgsnd(sysv_msg, &m, 8, 0) == 0,
         "SysV message");
}

static void check_events(void)
{
    uint64_t n = 0;
    need(read(event, &n, 8) == 8 && n == 17 && write(event, &n, 8) == 8, "eventfd");
    struct epoll_event e;
    int ready;
    do /* never restarted after a signal, whatever SA_RESTART says */
        ready = epoll_wait(epoll, &e, 1, 2000);
    while (ready < 0 && errno == EINTR);
    need(ready == 1 && e.data.u64 == 99, "epoll");
    need(read(timer, &n, 8) == 8 && n > 0, "timerfd");
    close(open(named("created"), O_CREAT | O_WRONLY, 0600));
    unlink(named("created"));
    char b[4096];
    need(read(watch, b, sizeof(b)) > 0, "inotify");
    sigset_t pending;
    need(sigpending(&pending) == 0 && sigismember(&pending, SIGRTMIN + 1) && rt_signals == 0,
         "pending signals");
}

static void check_files(void)
{
    char b[4096];
    need(pread(deleted, b, 4096, MB - 4096) == 4096 && b[0] == 'd' && b[4095] == 'd',
         "deleted file");
    struct stat st;
    need(fstat(deleted, &st) == 0 && st.st_size == MB, "deleted file's size");
    int again = open(named("locked"), O_RDWR);
    need(again >= 0 && flock(again, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK, "flock");
    close(again);
    need(waitpid(child, NULL, WNOHANG) == 0, "child");
}

static void run_child(void)
{
    /* Tests the parent's fcntl lock from outside, and shares its memory. */
    for (;;) {
        struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
        int fd = open(named("posix-locked"), O_RDWR);
        need(fd >= 0 && fcntl(fd, F_GETLK, &fl) == 0 && fl.l_type == F_WRLCK, "fcntl lock");
        close(fd);
        (*(uint32_t *)(void *)posix_shm)++;
        usleep(20000);
    }
}

int main(int argc, char **argv)
{
    const char *shm_name = argc > 2 ? argv[2] : "/zoo";
    snprintf(dir, sizeof(dir), "%s", argv[1]);
    make_channels();
    make_memory(shm_name);
    make_ipc();
    make_files();
    make_timers();
    make_events();
    child = fork();
    if (child == 0) {
        struct itimerval off = {{0, 0}, {0, 0}};
        setitimer(ITIMER_REAL, &off, NULL);
        run_child();
    }
    pthread_t t;
    for (int i = 0; i < 3; i++)
        need(pthread_create(&t, NULL, thread, NULL) == 0, "thread");
    printf("ready\n");
    fflush(stdout);
    for (unsigned round = 1;; round++) {
        long beats_before = beats, alarms_before = alarms, timers_before = timer_signals;
        uint32_t child_before = *(volatile uint32_t *)(void *)posix_shm;
        struct timespec pause = {0, 150000000}, left;
        while (nanosleep(&pause, &left) < 0 && errno == EINTR)
            pause = left;
        check_memory();
        check_channels();
        check_ipc();
        check_events();
        check_files();
        need(beats > beats_before, "threads");
        need(alarms > alarms_before, "itimer");
        need(timer_signals > timers_before, "POSIX timer");
        need(*(volatile uint32_t *)(void *)posix_shm > child_before, "the child's work");
        printf("round %u ok\n", round);
        fflush(stdout);
    }
}
