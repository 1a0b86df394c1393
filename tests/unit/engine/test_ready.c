#include "base/clock.h"
#include "base/fs.h"
#include "base/sys.h"
#include "engine/ready.h"
#include "harness/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static struct ready *parse(const char *text)
{
    struct err err = ERR_INIT;
    struct ready *r = NULL;
    CHECK_OK(ready_parse(text, &r, &err));
    ready_place(r, 0, -1, clock_now());
    return r;
}

static bool becomes_ready(struct ready *r)
{
    for (int i = 0; i < 300; i++) {
        struct timespec pause = {0, 10000000};
        if (ready_check(r))
            return true;
        (void)nanosleep(&pause, NULL);
    }
    return false;
}

TEST(nonsense_is_refused_with_the_forms_that_are_not)
{
    static const char *const bad[] = {
        "",           "file:",   "tcp:0",    "tcp:65536",       "tcp:name:80", "http:/x", "log:(",
        "after:soon", "https:x", "exit-of:", "http:https://x/", "http:80/a b", "never"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct ready *r = NULL;
        if (ready_parse(bad[i], &r, &err) != RC_INVALID)
            test_fail(__FILE__, __LINE__, "'%s' was accepted", bad[i]);
    }
}

TEST(a_file_makes_ready)
{
    struct err err = ERR_INIT;
    char text[512];
    (void)snprintf(text, sizeof(text), "file:%s/ready", test_dir());
    CLEANUP(ready_freep) struct ready *r = parse(text);
    CHECK(!ready_check(r));
    CHECK_OK(fs_write_whole(AT_FDCWD, text + 5, "x", 1, 0600, &err));
    CHECK(ready_check(r));
    CHECK(unlink(text + 5) == 0 && ready_check(r)); /* once true it stays */
}

TEST(a_line_of_output_makes_ready)
{
    CLEANUP(ready_freep) struct ready *r = parse("log:^listening on [0-9]+$");
    ready_output(r, 1, "not listening on 80\nlisten", 26);
    CHECK(!ready_check(r));
    ready_output(r, 2, "ing on 80\n", 10); /* the other stream's line is another line */
    CHECK(!ready_check(r));
    ready_output(r, 1, "ing on 80\n", 10);
    CHECK(ready_check(r));
}

TEST(a_listener_makes_ready)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    CLEANUP(fd_closep) int sk = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(sk >= 0 && bind(sk, (struct sockaddr *)&a, sizeof(a)) == 0 &&
          getsockname(sk, (struct sockaddr *)&a, &len) == 0);
    char text[64];
    (void)snprintf(text, sizeof(text), "tcp:localhost:%u", ntohs(a.sin_port));
    CLEANUP(ready_freep) struct ready *r = parse(text);
    for (int i = 0; i < 5; i++) {
        struct timespec pause = {0, 20000000};
        CHECK(!ready_check(r));
        (void)nanosleep(&pause, NULL);
    }
    CHECK(listen(sk, 5) == 0);
    CHECK(becomes_ready(r));
}

/* Answers every connection with the next of the texts, the last for ever. */
static void serve(int sk, const char *const *answers)
{
    for (size_t i = 0;;) {
        char request[4096];
        CLEANUP(fd_closep) int c = accept4(sk, NULL, NULL, SOCK_CLOEXEC);
        if (c < 0 || read(c, request, sizeof(request)) <= 0)
            continue;
        (void)!write(c, answers[i], strlen(answers[i]));
        i += answers[i + 1] != NULL;
    }
}

TEST(a_good_answer_makes_ready)
{
    static const char *const answers[] = {
        "HTTP/1.1 503 Not Yet\r\nContent-Length: 2\r\n\r\nno", "nonsense\r\n\r\n",
        "HTTP/1.1 404 Never\r\nContent-Length: 0\r\n\r\n",
        /* Far more is announced than comes. */
        "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 99999999\r\n\r\n", NULL};
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    CLEANUP(fd_closep) int sk = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(sk >= 0 && bind(sk, (struct sockaddr *)&a, sizeof(a)) == 0 && listen(sk, 5) == 0 &&
          getsockname(sk, (struct sockaddr *)&a, &len) == 0);
    pid_t server = fork();
    if (server == 0)
        serve(sk, answers);
    char text[64];
    (void)snprintf(text, sizeof(text), "http://localhost:%u/health?a=b", ntohs(a.sin_port));
    CLEANUP(ready_freep) struct ready *r = parse(text);
    CHECK(!ready_check(r));
    bool met = becomes_ready(r);
    CHECK(kill(server, SIGKILL) == 0 && waitpid(server, NULL, 0) == server);
    CHECK(met);
}

TEST(time_and_a_command_make_ready)
{
    CLEANUP(ready_freep) struct ready *after = parse("after:50ms");
    CLEANUP(ready_freep) struct ready *good = parse("exit-of:true");
    CLEANUP(ready_freep) struct ready *bad = parse("exit-of:exit 3");
    CHECK(!ready_check(after));
    CHECK(becomes_ready(after) && becomes_ready(good));
    for (int i = 0; i < 20; i++) {
        struct timespec pause = {0, 10000000};
        CHECK(!ready_check(bad));
        (void)nanosleep(&pause, NULL);
    }
}
