/* A scripted HTTP/1.1 server on 127.0.0.1, in threads of the test: it does on demand what no real
 * server does.  Every connection has a thread that reads requests and gives each to the test's
 * function, so that one must be safe for threads.  The server reads bodies whole before it asks.
 * Threads: httpd_* of a request belong to the thread that was called. */
#pragma once

#include "base/compiler.h"

#include <stddef.h>
#include <stdint.h>

struct httpd;

struct httpd_request {
    struct httpd *server;
    void *arg;           /* the script's */
    unsigned number;     /* of the request, from 0, as the server counts all */
    unsigned connection; /* number of the connection, from 0 */
    int fd;
    char method[16];
    char target[4096]; /* path and query as they came */
    char *headers;     /* "Name: value\r\n", NUL-terminated */
    char *body;
    size_t body_len;
};

typedef void httpd_script(struct httpd_request *r);

/* script is called with `arg` in the request. */
struct httpd *httpd_start(httpd_script *script, void *arg);
/* Ends every connection and thread. */
void httpd_stopp(struct httpd **server);

/* "http://127.0.0.1:PORT", borrowed */
const char *httpd_url(const struct httpd *server);
unsigned httpd_port(const struct httpd *server);
/* Requests and connections seen up to now. */
unsigned httpd_requests(struct httpd *server);
unsigned httpd_connections(struct httpd *server);

/* A header of the request, copied into `out` ("" when absent); returns out. */
const char *httpd_header(const struct httpd_request *r, const char *name, char *out, size_t cap);

/* Answer whole.  headers: further lines, each with \r\n, or NULL. */
void httpd_reply(struct httpd_request *r, unsigned status, const char *headers, const void *body,
                 size_t len);
/* Send raw bytes. */
void httpd_send(struct httpd_request *r, const void *data, size_t len);
void httpd_sendf(struct httpd_request *r, const char *fmt, ...) PRINTF_LIKE(2, 3);
/* End the connection, orderly or with a reset. */
void httpd_hang_up(struct httpd_request *r);
void httpd_reset(struct httpd_request *r);
void httpd_pause(unsigned ms);
