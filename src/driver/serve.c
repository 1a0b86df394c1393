#include "driver/serve.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "driver/action.h"
#include "driver/nvml.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ALONE_S 600 /* for a driver to bring back what a client has left; longer, and it hangs */

struct driver {
    struct cuda cuda;
    enum rc rc; /* of loading it */
    struct err err;
    pthread_t thread;
    bool running;
    int init_code; /* of cuInit(): the thread's until it is joined */
};

/* ---- loading ---- */

static void *initialise(void *arg)
{
    struct driver *d = arg;
    d->init_code = d->cuda.init(0);
    return NULL;
}

struct driver *driver_start(void)
{
    struct driver *d = mem_zalloc(sizeof(*d));
    (void)unsetenv("CUDA_VISIBLE_DEVICES"); /* it would hide the GPUs of those who are asked for */
    d->rc = cuda_open(&d->cuda, &d->err);
    if (d->rc)
        return d;
    d->running = pthread_create(&d->thread, NULL, initialise, d) == 0;
    if (!d->running)
        (void)initialise(d);
    return d;
}

static void await(struct driver *d)
{
    if (d->running)
        (void)pthread_join(d->thread, NULL);
    d->running = false;
}

void driver_freep(struct driver **p)
{
    if (*p)
        await(*p);
    mem_freep(p);
}

/* ---- answering ---- */

static void refuse(struct gpu_reply *out, enum rc rc, const char *why)
{
    out->rc = rc;
    (void)snprintf(out->why, sizeof(out->why), "%.*s", GPU_WHY_MAX - 1, why);
}

/* Answers without the driver's functions: a machine that has none is told so, too. */
static void hello(struct driver *d, struct gpu_reply *out)
{
    struct err err = ERR_INIT;
    out->has_facts = true;
    enum rc rc = nvml_inventory(&out->facts, &err);
    if (!d->rc) {
        out->facts.cuda = (uint32_t)d->cuda.cuda;
        out->facts.can_checkpoint = !d->cuda.missing;
        out->facts.can_map = !d->cuda.missing && d->cuda.cuda >= CUDA_VERSION_MAP;
    }
    if (d->rc)
        refuse(out, d->rc, d->err.msg);
    else if (rc)
        refuse(out, rc, err.msg);
}

/* Whether the driver can do what is asked. */
static bool is_able(struct driver *d, enum gpu_verb verb, struct gpu_reply *out)
{
    if (d->rc) {
        refuse(out, d->rc, d->err.msg);
        return false;
    }
    await(d);
    if (d->cuda.missing) {
        CLEANUP(mem_freep)
        char *why = mem_asprintf("the GPU driver has no %s; install driver 570 or newer "
                                 "(this one implements CUDA %d.%d)",
                                 d->cuda.missing, d->cuda.cuda / 1000, d->cuda.cuda % 1000 / 10);
        refuse(out, RC_UNSUPPORTED, why);
    } else if (d->init_code != CUDA_OK && verb != GPU_FIND) {
        CLEANUP(mem_freep)
        char *why = mem_asprintf("the GPU driver cannot be initialised: %s; is a GPU here, and may "
                                 "this user open /dev/nvidia*?",
                                 cuda_name(&d->cuda, d->init_code));
        refuse(out, RC_UNSUPPORTED, why);
    }
    return !out->rc;
}

void driver_answer(struct driver *d, const struct gpu_request *request, struct gpu_reply *out)
{
    struct gpu_facts *facts = &out->facts;
    *out = (struct gpu_reply){.rc = RC_OK};
    if (request->verb == GPU_HELLO) {
        hello(d, out);
        return;
    }
    if (!is_able(d, request->verb, out))
        return;
    if (request->map.n && d->cuda.cuda < CUDA_VERSION_MAP) {
        refuse(out, RC_UNSUPPORTED,
               "this GPU driver cannot restore onto other GPUs; 580 or newer can");
        return;
    }
    (void)!nvml_inventory(facts, NULL); /* for explanations only */
    action_run(&d->cuda, facts, request, out);
}

/* ---- who would stand still if our client died now ---- */

struct held {
    size_t n;
    pid_t pid[GPU_PIDS_MAX];
};

static void forget(struct held *h, pid_t pid)
{
    for (size_t i = 0; i < h->n; i++)
        if (h->pid[i] == pid)
            h->pid[i--] = h->pid[--h->n];
}

/* Take note of what a request has done.  A lock or checkpoint that fails is taken back at once, and
 * what cannot be restored its client ends. */
static void note(struct held *h, const struct gpu_request *request, const struct gpu_reply *reply)
{
    bool holds = request->verb == GPU_LOCK || request->verb == GPU_CHECKPOINT ||
                 request->verb == GPU_RESTORE;
    bool frees = request->verb == GPU_UNLOCK || request->verb == GPU_RELEASE;
    for (size_t i = 0; i < request->n_pids; i++) {
        if (holds || (frees && !reply->rc))
            forget(h, request->pid[i]);
        if (holds && !reply->rc && h->n < GPU_PIDS_MAX)
            h->pid[h->n++] = request->pid[i];
    }
}

/* Our client has ended and left them so. */
static void let_go(struct driver *d, const struct held *h)
{
    CLEANUP(mem_freep) struct gpu_request *request = mem_zalloc(sizeof(*request));
    CLEANUP(mem_freep) struct gpu_reply *reply = mem_zalloc(sizeof(*reply));
    if (!h->n)
        return;
    serve_alone(0);
    request->verb = GPU_RELEASE;
    request->n_pids = h->n;
    memcpy(request->pid, h->pid, h->n * sizeof(*h->pid));
    driver_answer(d, request, reply);
}

/* ---- serving ---- */

void serve_alone(int sig)
{
    (void)sig;
    (void)alarm(ALONE_S);
}

static enum rc serve_one(struct driver *d, int socket, const char *text, size_t len,
                         struct held *held, struct err *err)
{
    CLEANUP(mem_freep) struct gpu_request *request = mem_zalloc(sizeof(*request));
    CLEANUP(mem_freep) struct gpu_reply *reply = mem_zalloc(sizeof(*reply));
    CLEANUP(buf_done) struct buf out = {.max = GPU_MESSAGE_MAX};
    struct err bad = ERR_INIT;
    enum rc rc = gpu_request_parse(text, len, request, &bad);
    if (rc)
        refuse(reply, rc, bad.msg);
    else
        driver_answer(d, request, reply);
    if (!rc)
        note(held, request, reply);
    gpu_reply_format(reply, &out);
    if (out.overflowed)
        return err_set(err, RC_TOO_BIG, "an answer is too long for a packet");
    if (send(socket, out.data, out.len, MSG_NOSIGNAL) < 0)
        return err_sys(err, "answer");
    return RC_OK;
}

enum rc serve(int socket, struct err *err)
{
    CLEANUP(driver_freep) struct driver *d = driver_start();
    CLEANUP(mem_freep) char *text = mem_alloc(GPU_MESSAGE_MAX);
    CLEANUP(mem_freep) struct held *held = mem_zalloc(sizeof(*held));
    enum rc rc = RC_OK;
    for (ssize_t n = 1; !rc && n != 0;) {
        n = recv(socket, text, GPU_MESSAGE_MAX, 0);
        if (n < 0 && errno != EINTR)
            rc = err_sys(err, "read a request");
        else if (n > 0)
            rc = serve_one(d, socket, text, (size_t)n, held, err);
    }
    let_go(d, held);
    return rc;
}
