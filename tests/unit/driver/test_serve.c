#include "base/compiler.h"
#include "base/mem.h"
#include "driver/serve.h"
#include "harness/test.h"
#include "target.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void answer(enum gpu_verb verb, pid_t pid, const char *map, struct gpu_reply *out)
{
    struct err err = ERR_INIT;
    CLEANUP(driver_freep) struct driver *d = driver_start();
    CLEANUP(mem_freep) struct gpu_request *q = mem_zalloc(sizeof(*q));
    q->verb = verb;
    q->n_pids = pid != 0;
    q->pid[0] = pid;
    if (map)
        CHECK_OK(gpu_map_parse(map, &q->map, &err));
    driver_answer(d, q, out);
}

TEST(hello_tells_driver_and_gpus)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CHECK(setenv("CUDA_VISIBLE_DEVICES", "7", 1) == 0);
    answer(GPU_HELLO, 0, NULL, r);
    CHECK_INT(r->rc, RC_OK);
    CHECK(r->has_facts && r->facts.can_checkpoint && r->facts.can_map && r->facts.cuda == 13000);
    CHECK(!getenv("CUDA_VISIBLE_DEVICES")); /* hides no GPU from the driver */
    CHECK(setenv("CHREK_FAKE_DRIVER", "570.1", 1) == 0);
    answer(GPU_HELLO, 0, NULL, r);
    CHECK(r->facts.can_checkpoint && !r->facts.can_map);
}

TEST(gpus_that_cannot_be_listed)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CHECK(setenv("CHREK_FAKE_NVML_FAILS", "1", 1) == 0);
    answer(GPU_HELLO, 0, NULL, r);
    CHECK_INT(r->rc, RC_UNSUPPORTED);
    CHECK(strstr(r->why, "Driver Not Loaded"));
}

TEST(a_driver_that_does_not_start_is_said_so)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CHECK(setenv("CHREK_FAKE_CUDA", "init=fail:100", 1) == 0);
    answer(GPU_LOCK, getpid(), NULL, r);
    CHECK_INT(r->rc, RC_UNSUPPORTED);
    CHECK(strstr(r->why, "CUDA_ERROR_NO_DEVICE"));
    answer(GPU_FIND, getpid(), NULL, r); /* that needs no GPU */
    CHECK_INT(r->rc, RC_OK);
    CHECK_INT(r->n, 0);
}

TEST(a_map_needs_a_newer_driver)
{
    CLEANUP(mem_freep) struct gpu_reply *r = mem_zalloc(sizeof(*r));
    CHECK(setenv("CHREK_FAKE_DRIVER", "570.1", 1) == 0);
    answer(GPU_RESTORE, getpid(),
           "GPU-00000000-1111-2222-3333-444444444444=GPU-00000000-1111-2222-3333-444444444444", r);
    CHECK_INT(r->rc, RC_UNSUPPORTED);
    CHECK(strstr(r->why, "580 or newer"));
}

static void *serve_thread(void *arg)
{
    struct err err = ERR_INIT;
    return (void *)(uintptr_t)(unsigned)serve(*(int *)arg, &err);
}

TEST(a_socket_is_served_until_its_end)
{
    int sv[2];
    char text[4096];
    pthread_t thread;
    void *rc = &thread;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    CHECK(pthread_create(&thread, NULL, serve_thread, &sv[1]) == 0);
    static const char *const packets[][2] = {
        {"hello", "ok\n"}, {"nonsense", "error "}, {"find", "ok\n"}};
    for (size_t i = 0; i < ARRAY_LEN(packets); i++) {
        CHECK(send(sv[0], packets[i][0], strlen(packets[i][0]), 0) > 0);
        ssize_t n = recv(sv[0], text, sizeof(text), 0);
        CHECK(n > 0 && strncmp(text, packets[i][1], strlen(packets[i][1])) == 0);
    }
    (void)close(sv[0]);
    CHECK(pthread_join(thread, &rc) == 0 && !rc);
    (void)close(sv[1]);
}

/* Say one thing to a server, and end. */
static void say_and_end(const char *request)
{
    int sv[2];
    char text[4096];
    pthread_t thread;
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) == 0);
    CHECK(pthread_create(&thread, NULL, serve_thread, &sv[1]) == 0);
    CHECK(send(sv[0], request, strlen(request), 0) > 0);
    ssize_t n = recv(sv[0], text, sizeof(text), 0);
    CHECK(n > 0 && strncmp(text, "ok\n", 3) == 0);
    (void)close(sv[0]);
    CHECK(pthread_join(thread, NULL) == 0);
    (void)close(sv[1]);
    (void)alarm(0);
}

TEST(what_a_client_leaves_locked_runs_again)
{
    char request[64];
    pid_t pid = target_start(1000, NULL);
    unsigned first = target_step(pid);
    (void)snprintf(request, sizeof(request), "lock timeout=5000 pids=%d", (int)pid);
    say_and_end(request);
    unsigned second = target_step_wait(pid);
    CHECK(first && second && second != first);
    target_end(pid);
}

TEST(what_is_no_socket_is_not_served)
{
    struct err err = ERR_INIT;
    CHECK_RC(serve(-1, &err), RC_IO);
}
