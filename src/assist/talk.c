#include "assist/talk.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/num.h"
#include "base/sys.h"
#include "codec/json.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SEND_PATIENCE_MS 5000

union control {
    char space[CMSG_SPACE(TALK_FDS_MAX * sizeof(int))];
    struct cmsghdr align;
};

static void attach(struct msghdr *msg, union control *c, const int *fds, size_t n)
{
    if (n == 0)
        return;
    msg->msg_control = c->space;
    msg->msg_controllen = CMSG_SPACE(n * sizeof(int));
    struct cmsghdr *head = CMSG_FIRSTHDR(msg);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(head), fds, n * sizeof(int));
}

static enum rc send_packet(int sk, struct msghdr *msg, struct err *err)
{
    for (;;) {
        if (sendmsg(sk, msg, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0)
            return RC_OK;
        if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
            return err_set(err, RC_CANCELLED, "nobody listens any more");
        if (errno != EAGAIN && errno != EINTR)
            return err_sys(err, "send");
        struct pollfd wait = {sk, POLLOUT, 0};
        if (errno == EAGAIN && poll(&wait, 1, SEND_PATIENCE_MS) == 0)
            return err_set(err, RC_TIMEOUT, "the other end does not read");
    }
}

enum rc talk_send(int sk, const char *type, const char *const *members, const int *fds, size_t n,
                  struct err *err)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(buf_done) struct buf text = {.max = TALK_PACKET_MAX};
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "type", type);
    for (; members && members[0]; members += 2)
        if (members[1])
            (void)yyjson_mut_obj_add_str(doc, o, members[0], members[1]);
    json_write(doc, &text);
    if (text.overflowed || n > TALK_FDS_MAX)
        return err_set(err, RC_TOO_BIG, "a message '%s' is too long", type);
    struct iovec io = {text.data, text.len};
    union control control = {{0}};
    struct msghdr msg = {.msg_iov = &io, .msg_iovlen = 1};
    attach(&msg, &control, fds, n);
    return send_packet(sk, &msg, err);
}

/* ---- receiving ---- */

void talk_done(struct talk *t)
{
    for (size_t i = 0; i < t->n_fds; i++)
        fd_closep(&t->fd[i]);
    json_docp(&t->doc);
    *t = (struct talk)TALK_INIT;
}

static void take_descriptors(struct msghdr *msg, struct talk *t)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS ||
            n > TALK_FDS_MAX - t->n_fds)
            continue;
        memcpy(&t->fd[t->n_fds], CMSG_DATA(c), n * sizeof(int));
        t->n_fds += n;
    }
}

static enum rc failed(const struct talk *t, struct err *err)
{
    const char *why = talk_text(t, "error");
    return err_set(err, talk_text(t, "absent") ? RC_NOT_FOUND : RC_UNAVAILABLE, "%.400s",
                   why ? why : "no reason given");
}

static enum rc wait_for_packet(int sk, uint64_t deadline, struct err *err)
{
    for (;;) {
        struct pollfd wait = {sk, POLLIN, 0};
        int n = poll(&wait, 1, clock_poll_ms(deadline));
        if (n > 0)
            return RC_OK;
        if (n == 0)
            return err_set(err, RC_TIMEOUT, "the other end says nothing");
        if (errno != EINTR)
            return err_sys(err, "wait for a message");
    }
}

enum rc talk_receive(int sk, uint64_t deadline, struct talk *out, struct err *err)
{
    CLEANUP(talk_done) struct talk t = TALK_INIT;
    CLEANUP(mem_freep) char *text = mem_alloc(TALK_PACKET_MAX);
    union control control = {{0}};
    struct iovec io = {text, TALK_PACKET_MAX};
    struct msghdr msg = {.msg_iov = &io,
                         .msg_iovlen = 1,
                         .msg_control = control.space,
                         .msg_controllen = sizeof(control.space)};
    enum rc rc = wait_for_packet(sk, deadline, err);
    if (rc)
        return rc;
    ssize_t n;
    do
        n = recvmsg(sk, &msg, MSG_CMSG_CLOEXEC);
    while (n < 0 && (errno == EINTR || errno == ECONNRESET)); /* told once, before what was sent */
    if (n >= 0)
        take_descriptors(&msg, &t); /* an empty message may bring some, too */
    if (n == 0)
        return err_set(err, RC_CANCELLED, "the other end has closed the connection");
    if (n < 0)
        return err_sys(err, "receive a message");
    if (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return err_set(err, RC_CORRUPT, "a message is too long");
    rc = json_parse("a message", text, (size_t)n, &t.doc, err);
    if (rc)
        return rc;
    t.type = json_str(yyjson_doc_get_root(t.doc), "type", NULL);
    if (!t.type)
        return err_set(err, RC_CORRUPT, "a message without a type");
    *out = t;
    t = (struct talk)TALK_INIT;
    return RC_OK;
}

enum rc talk_expect(int sk, const char *type, uint64_t silence_ns, uint64_t deadline,
                    struct talk *out, struct err *err)
{
    for (;;) {
        CLEANUP(talk_done) struct talk t = TALK_INIT;
        uint64_t until = clock_now() + silence_ns;
        enum rc rc = talk_receive(sk, deadline && deadline < until ? deadline : until, &t, err);
        if (rc)
            return rc;
        assert(t.type); /* what talk_receive() promises */
        if (strcmp(t.type, TALK_WAIT) == 0 && (!deadline || clock_now() < deadline))
            continue;
        if (strcmp(t.type, TALK_FAILED) == 0)
            return failed(&t, err);
        if (strcmp(t.type, TALK_WAIT) == 0)
            return err_set(err, RC_TIMEOUT, "it takes too long");
        if (strcmp(t.type, type) != 0)
            return err_set(err, RC_CORRUPT, "a message '%.32s' where '%s' was due", t.type, type);
        *out = t;
        t = (struct talk)TALK_INIT;
        return RC_OK;
    }
}

const char *talk_text(const struct talk *t, const char *name)
{
    return json_str(yyjson_doc_get_root(t->doc), name, NULL);
}

uint64_t talk_number(const struct talk *t, const char *name)
{
    uint64_t n = 0;
    const char *text = talk_text(t, name);
    return text && num_parse_u64(text, 0, INT64_MAX, &n, NULL) == RC_OK ? n : 0;
}
