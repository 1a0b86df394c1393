/* The reader of listeners, over images as CRIU 4.2.1 writes them. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/listeners.h"
#include "harness/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

static void add_number(struct buf *out, uint8_t field, uint32_t value)
{
    buf_add(out, (uint8_t[]){(uint8_t)(field << 3)}, 1);
    for (; value > 127; value >>= 7)
        buf_add(out, (uint8_t[]){(uint8_t)(value | 128)}, 1);
    buf_add(out, (uint8_t[]){(uint8_t)value}, 1);
}

static void add_message(struct buf *out, uint8_t field, const struct buf *message)
{
    buf_add(out, (uint8_t[]){(uint8_t)(field << 3 | 2), (uint8_t)message->len}, 2);
    buf_add(out, message->data, message->len);
}

struct socket {
    const char *address;
    int type, state;
    uint16_t port;
    bool v6_only, shares;
};

static void add_socket(struct buf *image, const struct socket *s)
{
    CLEANUP(buf_done) struct buf inet = BUF_INIT;
    CLEANUP(buf_done) struct buf options = BUF_INIT;
    CLEANUP(buf_done) struct buf entry = BUF_INIT;
    uint32_t words[4];
    int family = strchr(s->address, ':') ? AF_INET6 : AF_INET;
    CHECK_INT(inet_pton(family, s->address, words), 1);
    add_number(&inet, 1, 7);
    add_number(&inet, 3, (uint32_t)family);
    add_number(&inet, 4, (uint32_t)s->type);
    add_number(&inet, 5, IPPROTO_TCP);
    add_number(&inet, 6, (uint32_t)s->state);
    add_number(&inet, 7, s->port);
    for (size_t i = 0; i < (family == AF_INET6 ? 4 : 1); i++)
        add_number(&inet, 11, words[i]);
    add_number(&options, 1, 212992);
    buf_add(&options, "\x88\x01", 2); /* field 17 */
    buf_add(&options, (uint8_t[]){s->shares}, 1);
    add_message(&inet, 14, &options);
    add_number(&inet, 15, s->v6_only);
    add_number(&entry, 1, 4);
    add_number(&entry, 2, 7);
    add_message(&entry, 4, &inet);
    uint32_t len = (uint32_t)entry.len;
    buf_add(image, &len, sizeof(len));
    buf_add(image, entry.data, entry.len);
}

static void check_address(const struct cr_listener *l, const char *want)
{
    char text[INET6_ADDRSTRLEN];
    CHECK(inet_ntop(AF_INET6, &l->address, text, sizeof(text)));
    CHECK_STR(text, want);
}

static int make(const struct socket *sockets, size_t n)
{
    static const uint32_t head[2] = {0x54564319, 0x56303138};
    CLEANUP(buf_done) struct buf image = BUF_INIT;
    struct err err = ERR_INIT;
    int dir = -1;
    CHECK_OK(fs_private_dir(&dir, &err));
    buf_add(&image, head, sizeof(head));
    for (size_t i = 0; i < n; i++)
        add_socket(&image, &sockets[i]);
    CHECK_OK(fs_write_whole(dir, "files.img", image.data, image.len, 0600, &err));
    return dir;
}

TEST(listeners_come_by_port_and_nothing_else_does)
{
    static const struct socket sockets[] = {
        {"::", SOCK_STREAM, TCP_LISTEN, 8080, true, false},
        {"127.0.0.1", SOCK_STREAM, TCP_LISTEN, 300, false, true},
        {"127.0.0.1", SOCK_STREAM, TCP_ESTABLISHED, 301, false, false},
        {"127.0.0.1", SOCK_DGRAM, TCP_LISTEN, 302, false, false},
        {"127.0.0.1", SOCK_STREAM, TCP_LISTEN, 0, false, false},
    };
    CLEANUP(fd_closep) int dir = make(sockets, ARRAY_LEN(sockets));
    CLEANUP(mem_freep) struct cr_listener *list = NULL;
    struct err err = ERR_INIT;
    size_t n = 0;
    CHECK_OK(cr_listeners_load(dir, &list, &n, &err));
    CHECK_INT(n, 2);
    CHECK_INT(list[0].port, 300);
    CHECK(list[0].shares && !list[0].v6_only);
    check_address(&list[0], "::ffff:127.0.0.1");
    CHECK_INT(list[1].port, 8080);
    CHECK(!list[1].shares && list[1].v6_only);
    check_address(&list[1], "::");
}

TEST(images_without_files_have_no_listeners)
{
    CLEANUP(fd_closep) int dir = -1;
    CLEANUP(mem_freep) struct cr_listener *list = NULL;
    struct err err = ERR_INIT;
    size_t n = 1;
    CHECK_OK(fs_private_dir(&dir, &err));
    CHECK_OK(cr_listeners_load(dir, &list, &n, &err));
    CHECK_INT(n, 0);
}

TEST(sockets_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {
        "\x03\x00\x00\x00\x22\x7f\x08",         /* a socket longer than its entry */
        "\x04\x00\x00\x00\x22\x02\x72\x7f",     /* options longer than the socket */
        "\x05\x00\x00\x00\x22\x03\x72\x01\x08", /* an option without a value */
    };
    static const size_t lengths[] = {7, 8, 9};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CLEANUP(fd_closep) int dir = -1;
        CLEANUP(buf_done) struct buf image = BUF_INIT;
        struct cr_listener *list = NULL;
        struct err err = ERR_INIT;
        size_t n = 0;
        CHECK_OK(fs_private_dir(&dir, &err));
        buf_add(&image, (uint32_t[]){0x54564319, 0x56303138}, 8);
        buf_add(&image, bad[i], lengths[i]);
        CHECK_OK(fs_write_whole(dir, "files.img", image.data, image.len, 0600, &err));
        CHECK_RC(cr_listeners_load(dir, &list, &n, &err), RC_CORRUPT);
    }
}
