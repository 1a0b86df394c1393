/* The conversation with `criu swrk`, held with a peer that says what a test wants: a shell script
 * in CRIU's place.  With the real CRIU the system tests hold it. */
#include "base/clock.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/session.h"
#include "harness/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* A program in CRIU's place: python speaks to the socket whose number is its last argument. */
static char *make_peer(const char *body)
{
    struct err err = ERR_INIT;
    char *path = mem_asprintf("%s/criu", test_dir());
    CLEANUP(mem_freep)
    char *text = mem_asprintf("#!/usr/bin/python3\n"
                              "import os, socket, sys, time\n"
                              "s = socket.socket(fileno=int(sys.argv[-1]))\n"
                              "%s\n",
                              body);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0755, &err));
    return path;
}

static enum rc ask(const char *body, uint64_t limit_ns, struct cr_facts *facts, struct err *err)
{
    CLEANUP(mem_freep) char *peer = make_peer(body);
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct cr_launch l = {.criu = peer};
    if (access("/usr/bin/python3", X_OK) < 0)
        test_skip("machine: no python3");
    CHECK(cr_session_open(&l, &s, err) == RC_OK);
    return cr_version(s, clock_now() + limit_ns, facts, err);
}

TEST(an_answer_is_understood)
{
    struct err err = ERR_INIT;
    struct cr_facts facts = {0};
    /* type 10, success, version { 4, 2, sublevel 1 } */
    CHECK_OK(ask("s.recv(999); s.send(bytes([8, 10, 16, 1, 82, 6, 8, 4, 16, 2, 32, 1]))",
                 20 * CLOCK_S, &facts, &err));
    CHECK(facts.major == 4 && facts.minor == 2 && facts.sublevel == 1);
}

TEST(a_peer_that_hangs_is_killed_in_time)
{
    struct err err = ERR_INIT;
    struct cr_facts facts;
    uint64_t begun = clock_now();
    CHECK_RC(ask("time.sleep(1000)", CLOCK_S, &facts, &err), RC_TIMEOUT);
    CHECK(clock_now() - begun < 5 * CLOCK_S);
}

TEST(a_peer_that_dies_is_noticed_and_its_last_words_are_told)
{
    struct err err = ERR_INIT;
    struct cr_facts facts;
    uint64_t begun = clock_now();
    CHECK_RC(
        ask("sys.stderr.write('cannot load library\\n'); sys.exit(1)", 100 * CLOCK_S, &facts, &err),
        RC_IO);
    CHECK(clock_now() - begun < 20 * CLOCK_S);
    CHECK(strstr(err.msg, "cannot load library"));
}

TEST(nonsense_is_an_error)
{
    static const char *const bodies[] = {
        "s.recv(999); s.send(b'\\xff\\xff\\xff')",                    /* no protobuf */
        "s.recv(999); s.send(bytes([8, 1, 16, 1]))",                  /* another answer */
        "s.recv(999); s.send(bytes([8, 10, 16, 1]))",                 /* without a version */
        "s.recv(999); s.send(bytes([8, 10, 16, 0, 74, 3]) + b'bad')", /* a failure */
    };
    for (size_t i = 0; i < ARRAY_LEN(bodies); i++) {
        struct err err = ERR_INIT;
        struct cr_facts facts = {.major = 77};
        CHECK_RC(ask(bodies[i], 20 * CLOCK_S, &facts, &err), RC_IO);
        CHECK(facts.major == 77);
    }
}

static enum rc on_event(void *arg, enum cr_event event, pid_t pid, int fd, struct err *err)
{
    unsigned *seen = arg;
    fd_closep(&fd);
    *seen = *seen * 100 + (unsigned)event;
    return pid == 13 ? err_set(err, RC_NO_SPACE, "the hook says no") : RC_OK;
}

/* DUMP is answered with notifications: post-dump with a PID, then the final word. */
/* NOLINTNEXTLINE(readability-non-const-parameter): the hook writes it */
static enum rc dump(int pid, unsigned *seen, struct err *err)
{
    char body[512];
    (void)snprintf(body, sizeof(body),
                   "s.recv(9999)\n"
                   "s.send(bytes([8, 6, 16, 1, 42, 11, 10, 9]) + b'post-dump')\n"
                   "s.recv(999)\n"
                   "n = b'new-thing'\n"
                   "s.send(bytes([8, 6, 16, 1, 42, 13, 10, 9]) + n + bytes([16, %d]))\n"
                   "a = s.recv(999)\n"
                   "s.send(bytes([8, 1, 16, 1 if b'\\x18\\x01' in a else 0]))",
                   pid);
    CLEANUP(mem_freep) char *peer = make_peer(body);
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct cr_launch l = {.criu = peer};
    struct cr_opts opts = {.pid = 1, .images_fd = 3, .work_fd = -1, .log_file = "x"};
    struct cr_hooks hooks = {.event = on_event, .arg = seen};
    CHECK(cr_session_open(&l, &s, err) == RC_OK);
    return cr_dump(s, &opts, &hooks, clock_now() + 20 * CLOCK_S, err);
}

TEST(notifications_reach_the_hook_and_its_no_is_final)
{
    struct err err = ERR_INIT;
    unsigned seen = 0;
    if (access("/usr/bin/python3", X_OK) < 0)
        test_skip("machine: no python3");
    CHECK_OK(dump(12, &seen, &err));
    CHECK(seen == CR_POST_DUMP * 100 + CR_UNKNOWN);
    CHECK_RC(dump(13, &seen, &err), RC_NO_SPACE);
    CHECK_STR(err.msg, "the hook says no");
}

static enum rc on_slow_event(void *arg, enum cr_event event, pid_t pid, int fd, struct err *err)
{
    (void)pid, (void)err;
    fd_closep(&fd);
    if (event == CR_POST_DUMP) /* until the deadline has passed */
        while (clock_now() < *(uint64_t *)arg)
            (void)usleep(10000);
    return RC_OK;
}

/* The images are whole by then: CRIU must not be killed before it has ended the tree. */
TEST(a_hook_after_the_dump_may_outlast_the_deadline)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep)
    char *peer = make_peer("s.recv(9999)\n"
                           "s.send(bytes([8, 6, 16, 1, 42, 11, 10, 9]) + b'post-dump')\n"
                           "s.recv(999)\n"
                           "time.sleep(0.3)\n"
                           "s.send(bytes([8, 1, 16, 1]))");
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct cr_launch l = {.criu = peer};
    struct cr_opts opts = {.pid = 1, .images_fd = 3, .work_fd = -1, .log_file = "x"};
    if (access("/usr/bin/python3", X_OK) < 0)
        test_skip("machine: no python3");
    CHECK(cr_session_open(&l, &s, &err) == RC_OK);
    uint64_t deadline = clock_now() + 3 * CLOCK_S;
    struct cr_hooks hooks = {.event = on_slow_event, .arg = &deadline};
    CHECK_OK(cr_dump(s, &opts, &hooks, deadline, &err));
}

/* ---- given up, or left behind ---- */

static bool is_state(const char *pid, const char *state)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("/proc/%s/stat", pid);
    enum rc rc = fs_read_file(AT_FDCWD, path, 512, &text, NULL);
    return rc == RC_OK && strstr(buf_str(&text), state);
}

/* Give up once the peer, which has written its PID into a file, stands. */
static void give_up_when_it_stands(const struct cancel *c)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/pid", test_dir());
    for (bool stands = false; !stands; (void)usleep(10000)) {
        CLEANUP(buf_done) struct buf pid = BUF_INIT;
        stands = fs_read_file(AT_FDCWD, path, 16, &pid, NULL) == RC_OK &&
                 is_state(buf_str(&pid), ") T ");
    }
    cancel_ask(c);
}

/* A dump that somebody gives up: before it is asked for, or when the peer `stands`.
 * peer  what it does before it asks whether it may go on, and then leaves a file that says whether
 *       it may */
/* NOLINTNEXTLINE(readability-non-const-parameter): the hook writes it */
static enum rc give_up_on(const char *peer, bool stands, unsigned *seen, struct err *err)
{
    struct err ignored = ERR_INIT;
    CLEANUP(cancel_done) struct cancel c = CANCEL_INIT;
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    CLEANUP(mem_freep)
    char *body = mem_asprintf("import signal\n"
                              "s.recv(9999)\n"
                              "%s\n"
                              "s.send(bytes([8, 6, 16, 1, 42, 11, 10, 9]) + b'post-dump')\n"
                              "a = s.recv(999)\n"
                              "open('%s/said', 'w').write('yes' if b'\\x18\\x01' in a else 'no')\n"
                              "s.send(bytes([8, 1, 16, 0]))",
                              peer, test_dir());
    CLEANUP(mem_freep) char *path = make_peer(body);
    if (access("/usr/bin/python3", X_OK) < 0)
        test_skip("machine: no python3");
    CHECK(cancel_init(&c, &ignored) == RC_OK);
    if (stands && fork() == 0) {
        give_up_when_it_stands(&c);
        _exit(0);
    }
    if (!stands)
        cancel_ask(&c);
    struct cr_launch l = {.criu = path, .cancel = &c, .watched = true, .deaf = true};
    struct cr_opts opts = {.pid = 1, .images_fd = 3, .work_fd = -1, .log_file = "x"};
    struct cr_hooks hooks = {.event = on_event, .arg = seen};
    CHECK(cr_session_open(&l, &s, err) == RC_OK);
    return cr_dump(s, &opts, &hooks, clock_now() + 60 * CLOCK_S, err);
}

static bool was_said(const char *want)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/said", test_dir());
    return fs_read_file(AT_FDCWD, path, 16, &text, NULL) == RC_OK &&
           strcmp(buf_str(&text), want) == 0;
}

TEST(who_is_given_up_is_refused_and_heard_out)
{
    struct err err = ERR_INIT;
    unsigned seen = 0;
    CHECK_RC(give_up_on("", false, &seen, &err), RC_CANCELLED);
    CHECK_STR(err.msg, "interrupted");
    CHECK(was_said("no") && seen == 0); /* the hook was not asked */
}

TEST(who_is_given_up_while_it_stands_is_woken)
{
    struct err err = ERR_INIT;
    unsigned seen = 0;
    CLEANUP(mem_freep)
    char *stand = mem_asprintf("open('%s/pid', 'w').write(str(os.getpid()))\n"
                               "os.kill(os.getpid(), signal.SIGSTOP)",
                               test_dir());
    CHECK_RC(give_up_on(stand, true, &seen, &err), RC_CANCELLED);
    CHECK(was_said("no"));
}

TEST(who_is_given_up_and_hangs_is_killed)
{
    struct err err = ERR_INIT;
    unsigned seen = 0;
    uint64_t begun = clock_now();
    CHECK_RC(give_up_on("time.sleep(1000)", false, &seen, &err), RC_CANCELLED);
    CHECK(clock_now() - begun < 40 * CLOCK_S && seen == 0);
}

TEST(who_is_deaf_does_not_go_down_with_those_around)
{
    struct err err = ERR_INIT;
    unsigned seen = 0;
    CHECK_RC(give_up_on("for n in (1, 2, 3, 13, 15): os.kill(os.getpid(), n)", false, &seen, &err),
             RC_CANCELLED);
    CHECK(was_said("no"));
}

/* A program in CRIU's place whose parent is killed; its PID.  It does `what` from then on. */
static pid_t lose_its_parent(const char *what, uint64_t patience_ns, uint64_t until)
{
    int ready[2];
    char number[16] = "";
    CLEANUP(mem_freep)
    char *body = mem_asprintf("os.write(64, b'%%d' %% os.getpid())\n%s", what);
    CLEANUP(mem_freep) char *path = make_peer(body);
    if (access("/usr/bin/python3", X_OK) < 0)
        test_skip("machine: no python3");
    CHECK(pipe2(ready, O_CLOEXEC) == 0);
    pid_t parent = fork();
    CHECK(parent >= 0);
    if (parent == 0) {
        struct cr_session *s = NULL;
        struct cr_launch l = {
            .criu = path, .pass_fds = &ready[1], .n_pass = 1, .watched = true, .deaf = true};
        l.patience_ns = patience_ns;
        l.until = until;
        _exit(cr_session_open(&l, &s, NULL) == RC_OK && pause() < 0);
    }
    CHECK(read(ready[0], number, sizeof(number) - 1) > 0);
    CHECK(kill(parent, SIGKILL) == 0 && waitpid(parent, NULL, 0) == parent);
    (void)close(ready[0]);
    (void)close(ready[1]);
    return (pid_t)strtol(number, NULL, 10);
}

static bool goes(pid_t pid)
{
    CLEANUP(mem_freep) char *text = mem_asprintf("%d", (int)pid);
    for (uint64_t end = clock_now() + 40 * CLOCK_S; clock_now() < end; (void)usleep(20000))
        if (!is_state(text, ") ") || is_state(text, ") Z "))
            return true;
    return false;
}

TEST(whose_parent_is_killed_hears_of_it_and_has_time)
{
    CLEANUP(mem_freep)
    char *what = mem_asprintf("while s.recv(99): pass\n"
                              "open('%s/said', 'w').write('end')",
                              test_dir());
    CHECK(goes(lose_its_parent(what, 0, 0)));
    CHECK(was_said("end"));
}

TEST(whose_parent_is_killed_while_it_hangs_is_ended)
{
    CHECK(goes(lose_its_parent("time.sleep(1000)", 2 * CLOCK_S, 0)));
}

/* It works for longer than it may do nothing. */
TEST(whose_parent_is_killed_may_work_on)
{
    CLEANUP(mem_freep)
    char *what = mem_asprintf("while s.recv(99): pass\n"
                              "while time.process_time() < 5: pass\n"
                              "open('%s/said', 'w').write('end')",
                              test_dir());
    CHECK(goes(lose_its_parent(what, 2 * CLOCK_S, clock_now() + 1000 * CLOCK_S)));
    CHECK(was_said("end"));
}

TEST(whose_parent_is_killed_does_not_work_for_ever)
{
    CHECK(goes(lose_its_parent("while True: pass", CLOCK_S, clock_now() + CLOCK_S)));
}

TEST(no_program_is_an_error_with_its_name)
{
    struct err err = ERR_INIT;
    struct cr_session *s = NULL;
    struct cr_launch l = {.criu = "/no/such/criu"};
    int fds = test_open_fds();
    CHECK_RC(cr_session_open(&l, &s, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "/no/such/criu"));
    CHECK(test_open_fds() == fds && !s);
}

TEST(descriptors_get_the_numbers_that_were_promised)
{
    struct err err = ERR_INIT;
    struct cr_facts facts = {0};
    CLEANUP(mem_freep)
    char *peer =
        make_peer("s.recv(999)\n"
                  "ok = os.read(64, 9) == b'first' and os.read(65, 9) == b'second'\n"
                  "fds = sorted(map(int, os.listdir('/proc/self/fd')))\n"
                  "extra = [f for f in fds if f > 2 and f not in (62, 63, 64, 65)]\n"
                  "s.send(bytes([8, 10, 16, 1, 82, 4, 8, 1 if ok else 0, 16, len(extra)]))");
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    int one[2], two[2];
    if (access("/usr/bin/python3", X_OK) < 0)
        test_skip("machine: no python3");
    CHECK(pipe2(one, O_CLOEXEC) == 0 && pipe2(two, O_CLOEXEC) == 0);
    CHECK(write(one[1], "first", 5) == 5 && write(two[1], "second", 6) == 6);
    CLEANUP(fd_closep) int a = one[0];
    CLEANUP(fd_closep) int b = one[1];
    CLEANUP(fd_closep) int c = two[0];
    CLEANUP(fd_closep) int d = two[1];
    int pass[] = {a, c};
    struct cr_launch l = {.criu = peer, .pass_fds = pass, .n_pass = 2};
    CHECK_OK(cr_session_open(&l, &s, &err));
    CHECK(cr_session_fd(0) == 64 && cr_session_fd(1) == 65);
    CHECK_OK(cr_version(s, clock_now() + 20 * CLOCK_S, &facts, &err));
    CHECK(facts.major == 1); /* both were readable under their numbers */
    CHECK(facts.minor <=
          2); /* the script file and the listing itself, nothing of ours but 62 (criu/facts.h) */
}

static int hang(void *arg)
{
    (void)arg;
    while (pause() < 0)
        continue;
    return 0;
}

TEST(a_launch_that_hangs_is_given_up_in_time)
{
    struct err err = ERR_INIT;
    struct cr_session *s = NULL;
    struct cr_launch l = {.criu = "/bin/true", .enter = hang, .deadline = clock_now() + CLOCK_S};
    CHECK_RC(cr_session_open(&l, &s, &err), RC_TIMEOUT);
    CHECK(s == NULL && strstr(err.msg, "in time"));
}
