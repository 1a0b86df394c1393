#include "criu/listeners.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "criu/images_priv.h"

#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define LISTENERS_MAX 65536
#define FIELD_INET 4U     /* of file_entry */
#define FIELD_OPTIONS 14U /* of inet_sk_entry */
#define FIELD_V6_ONLY 15U
#define FIELD_REUSEPORT 17U /* of sk_opts_entry */

struct inet {
    uint64_t family, type, state, port, v6_only, shares;
    uint32_t address[4];
    size_t n;
};

static void add_word(void *arg, uint64_t value)
{
    struct inet *s = arg;
    if (s->n < ARRAY_LEN(s->address))
        s->address[s->n++] = (uint32_t)value;
}

static int read_options(const struct wire_field *message, struct inet *s)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    int more;
    while ((more = wire_next(&w, &f)) == 1)
        if (f.number == FIELD_REUSEPORT && !f.is_bytes)
            s->shares = f.value;
    return more;
}

static int read_inet(const struct wire_field *message, struct inet *s)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        uint64_t *to[] = {[3] = &s->family,
                          [4] = &s->type,
                          [6] = &s->state,
                          [7] = &s->port,
                          [FIELD_V6_ONLY] = &s->v6_only};
        if (f.number < ARRAY_LEN(to) && to[f.number] && !f.is_bytes)
            *to[f.number] = f.value;
        if (f.number == 11)
            (void)wire_numbers(&f, add_word, s);
        if (f.number == FIELD_OPTIONS && f.is_bytes && read_options(&f, s) < 0)
            return -1;
    }
    return more;
}

static bool to_listener(const struct inet *s, struct cr_listener *out)
{
    bool six = s->family == AF_INET6;
    if (s->type != SOCK_STREAM || s->state != TCP_LISTEN || !s->port || s->port > UINT16_MAX ||
        s->n != (six ? 4U : 1U))
        return false;
    *out = (struct cr_listener){.address = {.s6_addr = {[10] = 0xff, [11] = 0xff}},
                                .port = (uint16_t)s->port,
                                .v6_only = six && s->v6_only,
                                .shares = s->shares != 0};
    memcpy(&out->address.s6_addr[six ? 0 : 12], s->address, s->n * sizeof(*s->address));
    return true;
}

struct listeners {
    struct cr_listener *list;
    size_t n;
};

static void listeners_done(struct listeners *l)
{
    free(l->list);
}

static enum rc add(const struct image *i, struct wire w, struct listeners *out, struct err *err)
{
    struct wire_field f;
    struct cr_listener one;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        struct inet s = {0};
        if (f.number != FIELD_INET || !f.is_bytes)
            continue;
        if (read_inet(&f, &s) < 0)
            return image_broken(i, err);
        if (!to_listener(&s, &one))
            continue;
        if (out->n == LISTENERS_MAX)
            return err_set(err, RC_TOO_BIG, "%s: more than %d listeners", i->name, LISTENERS_MAX);
        out->list = mem_realloc(out->list, (out->n + 1) * sizeof(one));
        out->list[out->n++] = one;
    }
    return more < 0 ? image_broken(i, err) : RC_OK;
}

static int by_port(const void *a, const void *b)
{
    const struct cr_listener *x = a, *y = b;
    return (x->port > y->port) - (x->port < y->port);
}

enum rc cr_listeners_load(int dirfd, struct cr_listener **out, size_t *out_n, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    CLEANUP(listeners_done) struct listeners found = {.n = 0};
    enum rc rc = image_open(dirfd, &i, err, "files.img");
    bool more = rc == RC_OK;
    if (rc == RC_NOT_FOUND)
        rc = RC_OK; /* nothing is open */
    while (!rc && more) {
        struct wire w;
        rc = image_next(&i, &w, &more, err);
        if (!rc && more)
            rc = add(&i, w, &found, err);
    }
    if (rc)
        return rc;
    if (found.n)
        qsort(found.list, found.n, sizeof(*found.list), by_port);
    *out = STEAL(found.list);
    *out_n = found.n;
    return RC_OK;
}
