/* A whole container in one static program, for root file systems with nothing in them.
 *
 * tiny enter DIR COMMAND...   makes DIR the root of this mount namespace, then becomes COMMAND
 * tiny init COMMAND...        PID 1: starts COMMAND as process 501 in a session of its own, reaps
 * tiny tick [FILE]            counts on standard output, tells of SIGUSR1, ends with 23 at SIGUSR2;
 * holds FILE open
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void must(int ok, const char *what)
{
    if (ok)
        return;
    perror(what);
    _exit(111);
}

static void enter(const char *dir, char **command)
{
    must(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0, "private");
    must(mount(dir, dir, NULL, MS_BIND | MS_REC, NULL) == 0, "bind");
    must(chdir(dir) == 0, "chdir");
    must(mount("proc", "proc", "proc", 0, NULL) == 0, "proc");
    must(syscall(SYS_pivot_root, ".", ".") == 0, "pivot_root");
    must(umount2(".", MNT_DETACH) == 0, "umount");
    must(chdir("/") == 0, "chdir /");
    execv(command[0], command);
    must(0, command[0]);
}

static void init(char **command)
{
    int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
    must(fd >= 0 && write(fd, "500", 3) == 3, "ns_last_pid");
    close(fd);
    if (fork() == 0) {
        setsid();
        close(0);
        must(open("/dev/null", O_RDONLY) == 0, "/dev/null");
        execv(command[0], command);
        must(0, command[0]);
    }
    while (wait(NULL) > 0)
        continue;
}

static void on_signal(int number)
{
    char text[] = "signal ..\n";
    text[7] = (char)('0' + number / 10);
    text[8] = (char)('0' + number % 10);
    (void)!write(1, text, sizeof(text) - 1);
    if (number == SIGUSR2)
        _exit(23);
}

static void tick(void)
{
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    for (unsigned n = 1;; n++) {
        struct timespec pause = {0, 50000000};
        printf("tick %u\n", n);
        fflush(stdout);
        nanosleep(&pause, NULL);
    }
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "enter") == 0)
        enter(argv[2], argv + 3);
    else if (argc > 2 && strcmp(argv[1], "init") == 0)
        init(argv + 2);
    if (argc == 3 && strcmp(argv[1], "tick") == 0)
        must(open(argv[2], O_RDONLY) >= 0, argv[2]);
    if (argc > 1 && strcmp(argv[1], "tick") == 0)
        tick();
    return 2;
}
