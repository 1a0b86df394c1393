#include "criu/netlock.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOG_MAX ((size_t)64 << 20)
#define LINE_MAX_LEN 512U
#define PATIENCE_NS (10 * CLOCK_S)
#define NO_PROGRAM 127

static const char marker[] = "Running ip";

/* What a rule of CRIU's looks like; "A": an address, "P": a port, "X": one of two. */
static const char *const rule[CR_NETLOCK_WORDS] = {
    "X",    "-w",      "-t",     "filter", "-I",       "X", "--protocol", "tcp", "-m",
    "mark", "!",       "--mark", "0xC114", "--source", "A", "--sport",    "P",   "--destination",
    "A",    "--dport", "P"};

static bool is_made_of(const char *word, const char *set)
{
    return *word && strspn(word, set) == strlen(word);
}

static bool fits(size_t i, const char *word)
{
    if (i == 0)
        return strcmp(word, "iptables") == 0 || strcmp(word, "ip6tables") == 0 ||
               strcmp(word, "iptables-legacy") == 0 || strcmp(word, "ip6tables-legacy") == 0;
    if (rule[i][0] == 'X')
        return strcmp(word, "INPUT") == 0 || strcmp(word, "OUTPUT") == 0;
    if (rule[i][0] == 'A')
        return is_made_of(word, "0123456789abcdefABCDEF.:");
    if (rule[i][0] == 'P')
        return is_made_of(word, "0123456789");
    return strcmp(word, rule[i]) == 0;
}

bool cr_netlock_parse(const char *line, size_t len, char *out[CR_NETLOCK_WORDS + 1], char *text,
                      size_t cap)
{
    static const char end[] = " -j DROP]";
    const char *at = memmem(line, len, marker, sizeof(marker) - 1);
    const char *open = at ? memchr(at, '[', len - (size_t)(at - line)) : NULL;
    size_t n = open ? len - (size_t)(open + 1 - line) : 0;
    if (n < sizeof(end) || n >= cap || memcmp(open + 1 + n - (sizeof(end) - 1), end, 9) != 0)
        return false;
    memcpy(text, open + 1, n - (sizeof(end) - 1));
    text[n - (sizeof(end) - 1)] = '\0';
    size_t words = 0;
    char *save = NULL;
    for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        if (words == CR_NETLOCK_WORDS || !fits(words, w))
            return false;
        out[words++] = w;
    }
    out[words] = NULL;
    return words == CR_NETLOCK_WORDS;
}

/* In a child; by the tree's network namespace, and our own files. */
static _Noreturn void become(char *const *argv, int net_ns)
{
    static const char *const folders[] = {"/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin"};
    char *env[] = {NULL}, path[64];
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)setsid();
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (net_ns >= 0 && setns(net_ns, CLONE_NEWNET) < 0)
        _exit(NO_PROGRAM);
    bool quiet = null >= 0 && dup2(null, 0) >= 0 && dup2(null, 1) >= 0 && dup2(null, 2) >= 0;
    for (size_t i = 0; quiet && i < ARRAY_LEN(folders); i++) {
        (void)snprintf(path, sizeof(path), "%s/%s", folders[i], argv[0]);
        (void)execve(path, argv, env);
    }
    _exit(NO_PROGRAM);
}

/* Run a command.  Its failing is fine: there was nothing to take back. */
static enum rc run(char *const *argv, int net_ns, struct err *err)
{
    int status = 0;
    pid_t pid = fork();
    if (pid < 0)
        return err_sys(err, "fork");
    if (pid == 0)
        become(argv, net_ns);
    uint64_t deadline = clock_now() + PATIENCE_NS;
    CLEANUP(fd_closep) int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    struct pollfd wait = {fd, POLLIN, 0};
    int n = 0;
    do
        n = poll(&wait, 1, clock_poll_ms(deadline));
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    if (n <= 0)
        return err_set(err, RC_IO, "%s did not end", argv[0]);
    if (WIFEXITED(status) && WEXITSTATUS(status) == NO_PROGRAM)
        return err_set(err, RC_IO, "%s cannot be run", argv[0]);
    return RC_OK;
}

static enum rc undo_line(const char *line, size_t len, int net_ns, struct err *err)
{
    static char off[] = "-D", jump[] = "-j", drop[] = "DROP", seconds[] = "5";
    char text[LINE_MAX_LEN];
    char *words[CR_NETLOCK_WORDS + 1], *argv[CR_NETLOCK_WORDS + 4];
    size_t n = 0;
    if (!cr_netlock_parse(line, len, words, text, sizeof(text)))
        return RC_OK;
    for (size_t i = 0; i < CR_NETLOCK_WORDS; i++) {
        argv[n++] = i == 4 ? off : words[i];
        if (i == 1) /* it waits for others, but not for ever */
            argv[n++] = seconds;
    }
    argv[n++] = jump;
    argv[n++] = drop;
    argv[n] = NULL;
    return run(argv, net_ns, err);
}

/* IPv4 and, where there is such a program, IPv6. */
static enum rc undo_chain(int net_ns, struct err *err)
{
    static char ip4[] = "iptables", ip6[] = "ip6tables", w[] = "-w", five[] = "5", name[] = "CRIU";
    static char off[] = "-D", in[] = "INPUT", out[] = "OUTPUT", jump[] = "-j", flush[] = "-F",
                remove[] = "-X";
    char *const programs[] = {ip4, ip6};
    enum rc rc = RC_OK;
    for (size_t i = 0; i < ARRAY_LEN(programs); i++) {
        char *p = programs[i];
        char *steps[][8] = {{p, w, five, off, in, jump, name, NULL},
                            {p, w, five, off, out, jump, name, NULL},
                            {p, w, five, flush, name, NULL},
                            {p, w, five, remove, name, NULL}};
        for (size_t k = 0; k < ARRAY_LEN(steps); k++) {
            enum rc one = run(steps[k], net_ns, rc ? NULL : err);
            rc = rc ? rc : one;
        }
    }
    return rc;
}

enum rc cr_netlock_undo(int dirfd, const char *log, int net_ns, bool chain, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = LOG_MAX};
    enum rc rc = chain ? undo_chain(net_ns, err) : RC_OK;
    if (fs_read_file(dirfd, log, LOG_MAX, &text, NULL) != RC_OK)
        return rc;
    const char *end = buf_str(&text) + text.len;
    for (const char *line = buf_str(&text); line < end;) {
        const char *eol = memchr(line, '\n', (size_t)(end - line));
        size_t n = (size_t)((eol ? eol : end) - line);
        enum rc one = undo_line(line, n, net_ns, rc ? NULL : err);
        rc = rc ? rc : one;
        line = eol ? eol + 1 : end;
    }
    return rc;
}
