#include "assist/talk.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/sys.h"
#include "harness/test.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

struct line {
    int a, b;
};

static void line_done(struct line *l)
{
    fd_closep(&l->a);
    fd_closep(&l->b);
}

static struct line line_new(void)
{
    int sk[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sk) == 0);
    return (struct line){sk[0], sk[1]};
}

TEST(a_packet_arrives_with_its_texts_and_descriptors)
{
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    const char *const members[] = {"id", "a\"b", "left out", NULL, "n", "42", NULL};
    int p[2];
    char byte = 0;
    CHECK(pipe(p) == 0);
    CHECK_OK(talk_send(l.a, TALK_RESTORE, members, p, 2, &err));
    CHECK_OK(talk_receive(l.b, 0, &t, &err));
    CHECK_STR(t.type, "restore");
    CHECK_STR(talk_text(&t, "id"), "a\"b");
    CHECK(!talk_text(&t, "left out"));
    CHECK_INT(talk_number(&t, "n"), 42);
    CHECK_INT(talk_number(&t, "id"), 0);
    CHECK_INT(t.n_fds, 2);
    CHECK(fcntl(t.fd[0], F_GETFD) & FD_CLOEXEC);
    CHECK(write(t.fd[1], "x", 1) == 1 && read(p[0], &byte, 1) == 1 && byte == 'x');
    (void)close(p[0]);
    (void)close(p[1]);
}

TEST(signs_of_life_are_waited_over_and_a_failure_is_one)
{
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    const char *const why[] = {"error", "no such thing", NULL};
    CHECK_OK(talk_send(l.a, TALK_WAIT, NULL, NULL, 0, &err));
    CHECK_OK(talk_send(l.a, TALK_READY, NULL, NULL, 0, &err));
    CHECK_OK(talk_expect(l.b, TALK_READY, CLOCK_S, 0, &t, &err));
    CHECK_OK(talk_send(l.a, TALK_WAIT, NULL, NULL, 0, &err));
    CHECK_OK(talk_send(l.a, TALK_FAILED, why, NULL, 0, &err));
    CHECK_RC(talk_expect(l.b, TALK_GO, CLOCK_S, 0, &t, &err), RC_UNAVAILABLE);
    CHECK_STR(err.msg, "no such thing");
    const char *const absent[] = {"error", "no checkpoint", "absent", "yes", NULL};
    CHECK_OK(talk_send(l.a, TALK_FAILED, absent, NULL, 0, &err));
    CHECK_RC(talk_expect(l.b, TALK_GO, CLOCK_S, 0, &t, &err), RC_NOT_FOUND);
    CHECK_OK(talk_send(l.a, TALK_PREPARE, NULL, NULL, 0, &err));
    CHECK_RC(talk_expect(l.b, TALK_GO, CLOCK_S, 0, &t, &err), RC_CORRUPT);
}

TEST(silence_has_an_end_and_so_have_signs_of_life)
{
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    CHECK_RC(talk_expect(l.b, TALK_GO, CLOCK_MS, 0, &t, &err), RC_TIMEOUT);
    CHECK_OK(talk_send(l.a, TALK_WAIT, NULL, NULL, 0, &err));
    CHECK_RC(talk_expect(l.b, TALK_GO, CLOCK_S, clock_now(), &t, &err), RC_TIMEOUT);
}

TEST(a_closed_end_is_told)
{
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    fd_closep(&l.a);
    CHECK_RC(talk_receive(l.b, 0, &t, &err), RC_CANCELLED);
    CHECK_RC(talk_send(l.b, TALK_GO, NULL, NULL, 0, &err), RC_CANCELLED);
}

TEST(what_is_no_packet_is_refused)
{
    static const char *const bad[] = {"x", "[]", "{}", "{\"type\": 1}"};
    static char big[TALK_PACKET_MAX + 1];
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK(send(l.a, bad[i], strlen(bad[i]), 0) > 0);
        CHECK_RC(talk_receive(l.b, 0, &t, &err), RC_CORRUPT);
    }
    CHECK(send(l.a, big, sizeof(big), 0) > 0);
    CHECK_RC(talk_receive(l.b, 0, &t, &err), RC_CORRUPT);
    CHECK(!t.doc && !t.n_fds);
}

TEST(descriptors_of_an_empty_packet_are_closed)
{
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct msghdr msg = {.msg_control = control.space, .msg_controllen = sizeof(control.space)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memset(CMSG_DATA(c), 0, sizeof(int)); /* standard input */
    CHECK(sendmsg(l.a, &msg, 0) == 0);
    int next = fcntl(l.a, F_DUPFD, 0);
    (void)close(next);
    CHECK_RC(talk_receive(l.b, 0, &t, &err), RC_CANCELLED);
    int after = fcntl(l.a, F_DUPFD, 0);
    (void)close(after);
    CHECK_INT(after, next);
}

TEST(more_descriptors_than_there_may_be_are_refused_and_closed)
{
    struct err err = ERR_INIT;
    CLEANUP(line_done) struct line l = line_new();
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    union {
        char space[CMSG_SPACE((TALK_FDS_MAX + 2) * sizeof(int))];
        struct cmsghdr align;
    } control = {{0}};
    struct iovec io = {(char *)(uintptr_t) "{\"type\":\"go\"}", 13};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((TALK_FDS_MAX + 2) * sizeof(int));
    memset(CMSG_DATA(c), 0, (TALK_FDS_MAX + 2) * sizeof(int)); /* standard input, six times */
    CHECK(sendmsg(l.a, &msg, 0) > 0);
    int next = fcntl(l.a, F_DUPFD, 0);
    (void)close(next);
    CHECK_RC(talk_receive(l.b, 0, &t, &err), RC_CORRUPT);
    int after = fcntl(l.a, F_DUPFD, 0);
    (void)close(after);
    CHECK_INT(after, next);
}
