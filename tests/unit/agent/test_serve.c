#include "agent/serve.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "harness/test.h"
#include "net/http.h"

#include <stdio.h>

static enum rc get(const struct serve *s, const char *method, const char *path,
                   struct http_response *a)
{
    struct err err = ERR_INIT;
    char url[64];
    CLEANUP(http_closep) struct http_client *c = NULL;
    const struct http_options o = {.direct = true, .tries = 1};
    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", serve_port(s), path);
    CHECK_OK(http_open(&o, &c, &err));
    return http_do(c, &(struct http_request){.method = method, .url = url}, a, &err);
}

TEST(health_and_metrics_are_served_and_nothing_else)
{
    static const struct {
        const char *method, *path, *want;
        unsigned status;
    } cases[] = {
        {"GET", "/health", "{\"status\":\"healthy\",\"node_name\":\"n\\\"1\"}", 200},
        {"POST", "/health", NULL, 405},
        {"PATCH", "/metrics", NULL, 405},
        {"GET", "/", NULL, 404},
        {"GET", "/checkpoints", NULL, 404},
    };
    struct err err = ERR_INIT;
    CLEANUP(metrics_freep) struct metrics *m = metrics_new();
    CLEANUP(serve_stopp) struct serve *s = NULL;
    metrics_add(m, METRIC_SUCCEEDED, 3);
    metrics_time(m, METRIC_TIME_FREEZE, 30 * CLOCK_MS);
    metrics_time(m, METRIC_TIME_FREEZE, 1000 * CLOCK_S);
    metrics_set_pods(m, 5, 2);
    CHECK_OK(serve_start("127.0.0.1:0", "n\"1", m, &s, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(http_response_done) struct http_response a = {0};
        CHECK_OK(get(s, cases[i].method, cases[i].path, &a));
        CHECK_INT(a.status, cases[i].status);
        if (cases[i].want)
            CHECK_STR(buf_str(&a.body), cases[i].want);
    }
    CLEANUP(http_response_done) struct http_response a = {0};
    CHECK_OK(get(s, "GET", "/metrics", &a));
    CHECK(strstr(buf_str(&a.body), "\nchrek_captures_total{outcome=\"succeeded\"} 3\n"));
    CHECK(strstr(buf_str(&a.body), "\nchrek_pods_waiting 2\n"));
    CHECK(strstr(buf_str(&a.body), "\nchrek_freeze_seconds_bucket{le=\"0.025\"} 0\n"));
    CHECK(strstr(buf_str(&a.body), "\nchrek_freeze_seconds_bucket{le=\"300\"} 1\n"));
    CHECK(strstr(buf_str(&a.body), "\nchrek_freeze_seconds_bucket{le=\"+Inf\"} 2\n"));
    CHECK(strstr(buf_str(&a.body), "\nchrek_freeze_seconds_sum 1000.030000000\n"));
}

TEST(what_cannot_be_listened_on_is_said)
{
    struct err err = ERR_INIT;
    char address[32];
    struct serve *none = NULL;
    CLEANUP(metrics_freep) struct metrics *m = metrics_new();
    CLEANUP(serve_stopp) struct serve *s = NULL;
    CHECK_RC(serve_start("8080", "n", m, &none, &err), RC_INVALID);
    CHECK_RC(serve_start(":http", "n", m, &none, &err), RC_INVALID);
    CHECK_RC(serve_start(":65536", "n", m, &none, &err), RC_INVALID);
    CHECK_OK(serve_start("127.0.0.1:0", "n", m, &s, &err));
    (void)snprintf(address, sizeof(address), "127.0.0.1:%u", serve_port(s));
    CHECK_RC(serve_start(address, "n", m, &none, &err), RC_IO);
}
