#include "base/compiler.h"
#include "base/mem.h"
#include "criu/images_priv.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define INODES_MAX 4096 /* memfds; what is more stays without a name */

/* CRIU's numbers of kinds of files, which are also those of nothing else. */
static const struct {
    uint32_t type, field; /* field of file_entry that holds the details */
    const char *kind;
} kinds[] = {
    {1, 3, "file"},      {2, 18, "pipe"},      {3, 17, "fifo"},      {4, 4, "inet"},
    {5, 16, "unix"},     {6, 8, "eventfd"},    {7, 9, "epoll"},      {8, 13, "inotify"},
    {9, 10, "signalfd"}, {10, 6, "packet"},    {11, 19, "terminal"}, {12, 14, "fanotify"},
    {13, 7, "netlink"},  {14, 5, "namespace"}, {15, 11, "tun"},      {16, 15, "external"},
    {17, 12, "timerfd"}, {18, 20, "memfd"},    {19, 21, "bpf"},      {20, 22, "pidfd"},
};

static uint32_t field_number(const struct wire_field *message, uint32_t number)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    while (wire_next(&w, &f) == 1)
        if (f.number == number && !f.is_bytes)
            return (uint32_t)f.value;
    return 0;
}

static char *file_text(const struct wire_field *message)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    while (wire_next(&w, &f) == 1)
        if (f.number == 6 && f.is_bytes)
            return image_text(&f);
    return mem_strdup("");
}

/* ---- sockets ---- */

static const char *const states[] = {"",           "established", "syn-sent",  "syn-received",
                                     "fin-wait1",  "fin-wait2",   "time-wait", "closed",
                                     "close-wait", "last-ack",    "listening", "closing"};

static const char *state_name(uint64_t state)
{
    return state < ARRAY_LEN(states) ? states[state] : "";
}

struct inet {
    uint32_t family, type, proto, state, ports[2];
    uint32_t address[2][4];
    size_t n[2];
    size_t side; /* that is being read */
};

static void add_word(void *arg, uint64_t value)
{
    struct inet *s = arg;
    if (s->n[s->side] < 4)
        s->address[s->side][s->n[s->side]++] = (uint32_t)value;
}

static void endpoint(const struct inet *s, size_t side, struct buf *out)
{
    char text[INET6_ADDRSTRLEN] = "?";
    bool six = s->family == AF_INET6;
    if (s->n[side] == (six ? 4U : 1U))
        (void)inet_ntop(six ? AF_INET6 : AF_INET, s->address[side], text, sizeof(text));
    buf_addf(out, six ? "[%s]:%u" : "%s:%u", text, s->ports[side]);
}

static const char *inet_kind(const struct inet *s)
{
    if (s->proto == IPPROTO_TCP || (!s->proto && s->type == SOCK_STREAM))
        return "tcp";
    return s->type == SOCK_DGRAM ? "udp" : "raw";
}

static char *inet_text(const struct wire_field *message, const char **out_kind)
{
    struct inet s = {0};
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    while (wire_next(&w, &f) == 1) {
        uint32_t *to[] = {[3] = &s.family, [4] = &s.type,     [5] = &s.proto,
                          [6] = &s.state,  [7] = &s.ports[0], [8] = &s.ports[1]};
        if (f.number >= 3 && f.number <= 8)
            *to[f.number] = (uint32_t)f.value;
        s.side = f.number == 12;
        if (f.number == 11 || f.number == 12)
            (void)wire_numbers(&f, add_word, &s);
    }
    *out_kind = inet_kind(&s);
    endpoint(&s, 0, &out);
    if (s.ports[1]) {
        buf_adds(&out, " to ");
        endpoint(&s, 1, &out);
    }
    if (strcmp(*out_kind, "tcp") == 0 && *state_name(s.state))
        buf_addf(&out, " %s", state_name(s.state));
    return buf_steal(&out);
}

static char *unix_text(const struct wire_field *message)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    uint64_t ino = 0, type = 0, state = 0, peer = 0;
    CLEANUP(mem_freep) char *name = NULL;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    while (wire_next(&w, &f) == 1) {
        ino = f.number == 2 ? f.value : ino;
        type = f.number == 3 ? f.value : type;
        state = f.number == 4 ? f.value : state;
        peer = f.number == 8 ? f.value : peer;
        if (f.number == 11 && f.is_bytes && f.len && !name)
            name = image_text(&f);
    }
    if (name && name[0] && name[0] != '@') /* a path ends with a NUL byte */
        name[strcspn(name, "@")] = '\0';
    buf_adds(&out, type == SOCK_DGRAM ? "dgram" : type == SOCK_SEQPACKET ? "seqpacket" : "stream");
    buf_addf(&out, " %llu", (unsigned long long)ino);
    if (peer)
        buf_addf(&out, " to %llu", (unsigned long long)peer);
    if (name)
        buf_addf(&out, " %s", name);
    if (state == TCP_LISTEN)
        buf_adds(&out, " listening");
    return buf_steal(&out);
}

/* ---- memfd ---- */

struct inode {
    uint32_t id;
    char *name;
};

struct inodes {
    struct inode *list;
    size_t n;
};

static void inodes_done(struct inodes *inodes)
{
    for (size_t i = 0; i < inodes->n; i++)
        free(inodes->list[i].name);
    free(inodes->list);
}

static enum rc inodes_load(int dirfd, struct inodes *out, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(dirfd, &i, err, "memfd.img");
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    while (!rc && more && out->n < INODES_MAX) {
        struct inode inode = {.name = NULL};
        struct wire w;
        struct wire_field f;
        rc = image_next(&i, &w, &more, err);
        while (!rc && more && wire_next(&w, &f) == 1) {
            if (f.number == 1 && f.is_bytes && !inode.name)
                inode.name = image_text(&f);
            else if (f.number == 7)
                inode.id = (uint32_t)f.value;
        }
        if (!inode.name)
            continue;
        out->list = mem_realloc(out->list, (out->n + 1) * sizeof(*out->list));
        out->list[out->n++] = inode;
    }
    return rc;
}

static char *memfd_text(const struct inodes *inodes, const struct wire_field *message)
{
    uint32_t id = field_number(message, 5);
    for (size_t i = 0; i < inodes->n; i++)
        if (inodes->list[i].id == id)
            return mem_strdup(inodes->list[i].name);
    return mem_strdup("");
}

static char *number_text(const char *what, const struct wire_field *message, uint32_t number)
{
    return mem_asprintf("%s %u", what, field_number(message, number));
}

static void describe(const struct inodes *inodes, struct cr_file *file, uint32_t type,
                     const struct wire_field *details)
{
    switch (type) {
    case 1:
        file->text = file_text(details);
        return;
    case 2:
        file->text = number_text("pipe", details, 2);
        return;
    case 4:
        file->text = inet_text(details, &file->kind);
        return;
    case 5:
        file->text = unix_text(details);
        return;
    case 6:
        file->text = number_text("count", details, 4);
        return;
    case 11:
        file->text = number_text("terminal", details, 2);
        return;
    case 18:
        file->text = memfd_text(inodes, details);
        return;
    default:
        file->text = mem_strdup("");
    }
}

static enum rc add(const struct inodes *inodes, const struct image *i, struct wire w,
                   struct cr_files *out, struct err *err)
{
    struct wire_field fields[32], f;
    uint64_t type = 0, id = 0;
    int more;
    memset(fields, 0, sizeof(fields));
    while ((more = wire_next(&w, &f)) == 1) {
        if (f.number == 1)
            type = f.value;
        else if (f.number == 2)
            id = f.value;
        else if (f.number < ARRAY_LEN(fields) && f.is_bytes)
            fields[f.number] = f;
    }
    if (more < 0)
        return image_broken(i, err);
    struct cr_file file = {.id = (uint32_t)id, .kind = "other"};
    for (size_t k = 0; k < ARRAY_LEN(kinds); k++)
        if (kinds[k].type == type) {
            file.kind = kinds[k].kind;
            describe(inodes, &file, (uint32_t)type, &fields[kinds[k].field]);
        }
    if (!file.text)
        file.text = mem_strdup("");
    out->list = mem_realloc(out->list, (out->n + 1) * sizeof(*out->list));
    out->list[out->n++] = file;
    return RC_OK;
}

static int by_id(const void *a, const void *b)
{
    const struct cr_file *x = a, *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

enum rc image_files_load(int dirfd, struct cr_files *out, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    CLEANUP(image_files_done) struct cr_files files = {0};
    CLEANUP(inodes_done) struct inodes inodes = {0};
    enum rc rc = inodes_load(dirfd, &inodes, err);
    if (!rc)
        rc = image_open(dirfd, &i, err, "files.img");
    bool more = rc == RC_OK;
    if (rc == RC_NOT_FOUND)
        rc = RC_OK; /* nothing is open */
    while (!rc && more) {
        struct wire w;
        rc = image_next(&i, &w, &more, err);
        if (!rc && more && files.n == IMAGES_AREAS_MAX)
            rc = err_set(err, RC_TOO_BIG, "files.img: more than %u files", IMAGES_AREAS_MAX);
        if (!rc && more)
            rc = add(&inodes, &i, w, &files, err);
    }
    if (rc)
        return rc;
    if (files.n)
        qsort(files.list, files.n, sizeof(*files.list), by_id);
    *out = files;
    files = (struct cr_files){0};
    return RC_OK;
}

const struct cr_file *image_files_find(const struct cr_files *files, uint32_t id)
{
    struct cr_file key = {.id = id};
    return files->n ? bsearch(&key, files->list, files->n, sizeof(key), by_id) : NULL;
}

void image_files_done(struct cr_files *files)
{
    for (size_t i = 0; i < files->n; i++)
        free(files->list[i].text);
    free(files->list);
    *files = (struct cr_files){0};
}
