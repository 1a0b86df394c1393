#include "container/sockets.h"

#include "base/buf.h"
#include "base/mem.h"
#include "container/scan.h"
#include "container/task.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void sockets_done(struct sockets *s)
{
    free(s->list);
    *s = (struct sockets){0};
}

/* "0100007F:1F90": words of four bytes as this machine reads them, the port as a number. */
static bool take_address(struct scan s, bool v6, struct in6_addr *out, uint16_t *out_port)
{
    struct scan address;
    uint64_t word = 0, port = 0;
    size_t words = v6 ? 4 : 1;
    *out = (struct in6_addr){.s6_addr = {[10] = 0xff, [11] = 0xff}};
    if (!scan_until(&s, ':', &address) || scan_len(address) != words * 8 ||
        !scan_u64(s, 16, &port) || port > UINT16_MAX)
        return false;
    for (size_t i = 0; i < words; i++) {
        struct scan one = {address.at + i * 8, address.at + i * 8 + 8};
        if (!scan_u64(one, 16, &word))
            return false;
        uint32_t bytes = (uint32_t)word;
        memcpy(&out->s6_addr[v6 ? i * 4 : 12], &bytes, sizeof(bytes));
    }
    *out_port = (uint16_t)port;
    return true;
}

static bool take_line(struct scan s, bool v6, struct socket_tcp *t)
{
    struct scan word[10], queue, received;
    uint64_t state = 0;
    for (size_t i = 0; i < ARRAY_LEN(word); i++)
        if (!scan_word(&s, &word[i]))
            return false;
    if (!take_address(word[1], v6, &t->local, &t->local_port) ||
        !take_address(word[2], v6, &t->remote, &t->remote_port) || !scan_u64(word[3], 16, &state) ||
        state > INT_MAX || !scan_u64(word[9], 10, &t->ino))
        return false;
    received = word[4];
    if (!scan_until(&received, ':', &queue) || !scan_u64(received, 16, &t->pending))
        return false;
    if (state != TCP_LISTEN)
        t->pending = 0;
    t->state = (int)state;
    return true;
}

enum rc sockets_parse(const char *text, size_t len, bool v6, struct sockets *out, struct err *err)
{
    struct scan line, s = scan_of(text, len);
    size_t n = out->n, cap = out->n;
    if (!scan_line(&s, &line))
        return RC_OK;
    while (scan_line(&s, &line)) {
        struct socket_tcp one = {0};
        if (n == SOCKETS_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d TCP sockets", SOCKETS_MAX);
        if (!take_line(line, v6, &one))
            return err_set(err, RC_CORRUPT, "TCP socket %zu makes no sense", n + 1 - out->n);
        if (n == cap)
            out->list = mem_realloc(out->list, (cap = cap ? cap * 2 : 64) * sizeof(*out->list));
        out->list[n++] = one;
    }
    out->n = n;
    return RC_OK;
}

static enum rc read_table(int task, const char *file, bool v6, struct sockets *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, file, &text, err);
    return rc ? rc : sockets_parse(text.data, text.len, v6, out, err);
}

enum rc sockets_read(int task, struct sockets *out, struct err *err)
{
    CLEANUP(sockets_done) struct sockets s = {0};
    enum rc rc = read_table(task, "net/tcp", false, &s, err);
    if (rc)
        return rc;
    struct err why = ERR_INIT;
    rc = read_table(task, "net/tcp6", true, &s, &why);
    if (rc && rc != RC_NOT_FOUND)
        return err_set(err, rc, "%s", why.msg);
    *out = s;
    s = (struct sockets){0};
    return RC_OK;
}

const struct socket_tcp *sockets_find(const struct sockets *s, uint64_t ino)
{
    for (size_t i = 0; ino && i < s->n; i++)
        if (s->list[i].ino == ino)
            return &s->list[i];
    return NULL;
}

static bool same_end(const struct in6_addr *a, uint16_t a_port, const struct in6_addr *b,
                     uint16_t b_port)
{
    return a_port == b_port && memcmp(a, b, sizeof(*a)) == 0;
}

const struct socket_tcp *sockets_peer(const struct sockets *s, const struct socket_tcp *one)
{
    for (size_t i = 0; i < s->n; i++) {
        const struct socket_tcp *o = &s->list[i];
        if (o != one && o->ino &&
            same_end(&o->local, o->local_port, &one->remote, one->remote_port) &&
            same_end(&o->remote, o->remote_port, &one->local, one->local_port))
            return o;
    }
    return NULL;
}

void sockets_address(const struct in6_addr *a, uint16_t port, char out[SOCKETS_TEXT_MAX])
{
    char text[INET6_ADDRSTRLEN] = "?";
    if (IN6_IS_ADDR_V4MAPPED(a)) {
        (void)inet_ntop(AF_INET, &a->s6_addr[12], text, sizeof(text));
        (void)snprintf(out, SOCKETS_TEXT_MAX, "%s:%u", text, (unsigned)port);
    } else {
        (void)inet_ntop(AF_INET6, a, text, sizeof(text));
        (void)snprintf(out, SOCKETS_TEXT_MAX, "[%s]:%u", text, (unsigned)port);
    }
}
