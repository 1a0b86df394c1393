/* What client.c and list.c share.  Threads: as the client's. */
#pragma once

#include "kube/client.h"
#include "kube/login.h"
#include "net/http.h"

struct kube {
    struct http_client *http;
    char *server;
    char *token, *token_file; /* one of these three, or none */
    struct kube_login *login;
};

/* Send a request whose URL, body limit and credentials are set here.
 * out  the answer's document unless it goes to a sink; may be NULL */
enum rc kube_send(struct kube *k, struct http_request *r, const char *path, yyjson_doc **out,
                  struct err *err);

/* The code for an answer's status and the reason in it. */
enum rc kube_status_rc(unsigned status, const char *reason);
/* The error that a Status object tells of; `status` may be NULL. */
enum rc kube_refused(yyjson_val *status, unsigned code, struct err *err);
