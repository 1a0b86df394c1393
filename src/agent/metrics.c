#include "agent/metrics.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

static const double bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300};

struct histogram {
    uint64_t bucket[ARRAY_LEN(bounds)]; /* not cumulative */
    uint64_t n, sum_ns;
};

struct metrics {
    pthread_mutex_t lock; /* guards everything */
    uint64_t counter[METRIC_COUNT_];
    struct histogram time[METRIC_TIME_COUNT_];
    uint64_t watched, waiting;
};

struct metrics *metrics_new(void)
{
    struct metrics *m = mem_zalloc(sizeof(*m));
    (void)pthread_mutex_init(&m->lock, NULL);
    return m;
}

void metrics_freep(struct metrics **metrics)
{
    struct metrics *m = STEAL(*metrics);
    if (!m)
        return;
    (void)pthread_mutex_destroy(&m->lock);
    free(m);
}

void metrics_add(struct metrics *m, enum metric which, uint64_t n)
{
    (void)pthread_mutex_lock(&m->lock);
    m->counter[which] += n;
    (void)pthread_mutex_unlock(&m->lock);
}

void metrics_time(struct metrics *m, enum metric_time which, uint64_t ns)
{
    struct histogram *h = &m->time[which];
    double seconds = (double)ns / (double)CLOCK_S;
    (void)pthread_mutex_lock(&m->lock);
    h->n++;
    h->sum_ns += ns;
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++)
        if (seconds <= bounds[i]) {
            h->bucket[i]++;
            break;
        }
    (void)pthread_mutex_unlock(&m->lock);
}

void metrics_set_pods(struct metrics *m, uint64_t watched, uint64_t waiting)
{
    (void)pthread_mutex_lock(&m->lock);
    m->watched = watched;
    m->waiting = waiting;
    (void)pthread_mutex_unlock(&m->lock);
}

static void head(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_addf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void one(struct buf *out, const char *name, const char *type, const char *help,
                uint64_t value)
{
    head(out, name, type, help);
    buf_addf(out, "%s %" PRIu64 "\n", name, value);
}

static void histogram(struct buf *out, const char *name, const char *help,
                      const struct histogram *h)
{
    uint64_t sum = 0;
    head(out, name, "histogram", help);
    for (size_t i = 0; i < ARRAY_LEN(bounds); i++) {
        sum += h->bucket[i];
        buf_addf(out, "%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds[i], sum);
    }
    buf_addf(out, "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name, h->n);
    buf_addf(out, "%s_sum %.9f\n", name, (double)h->sum_ns / (double)CLOCK_S);
    buf_addf(out, "%s_count %" PRIu64 "\n", name, h->n);
}

void metrics_format(struct metrics *m, struct buf *out)
{
    static const char *const outcomes[] = {
        [METRIC_SUCCEEDED] = "succeeded", [METRIC_FAILED] = "failed", [METRIC_RETRIED] = "retried"};
    (void)pthread_mutex_lock(&m->lock);
    head(out, "chrek_captures_total", "counter", "Captures of containers, by how they ended.");
    for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
        buf_addf(out, "chrek_captures_total{outcome=\"%s\"} %" PRIu64 "\n", outcomes[i],
                 m->counter[i]);
    one(out, "chrek_capture_stored_bytes_total", "counter", "Bytes that checkpoints have added.",
        m->counter[METRIC_BYTES]);
    one(out, "chrek_capture_memory_bytes_total", "counter", "Bytes of memory in checkpoints.",
        m->counter[METRIC_MEMORY_BYTES]);
    head(out, "chrek_restores_total", "counter",
         "Containers restored for their entrypoints, by how it ended.");
    buf_addf(out, "chrek_restores_total{outcome=\"succeeded\"} %" PRIu64 "\n",
             m->counter[METRIC_RESTORED]);
    buf_addf(out, "chrek_restores_total{outcome=\"failed\"} %" PRIu64 "\n",
             m->counter[METRIC_RESTORE_FAILED]);
    one(out, "chrek_watch_errors_total", "counter",
        "Lists and watches of the API server that failed.", m->counter[METRIC_WATCH_ERRORS]);
    one(out, "chrek_pods_watched", "gauge", "Pods of this node that the agent watches.",
        m->watched);
    one(out, "chrek_pods_waiting", "gauge", "Pods that wait for their capture.", m->waiting);
    histogram(out, "chrek_capture_seconds", "From the begin of a capture to its publication.",
              &m->time[METRIC_TIME_CAPTURE]);
    histogram(out, "chrek_freeze_seconds", "How long processes stood still for a capture.",
              &m->time[METRIC_TIME_FREEZE]);
    histogram(out, "chrek_restore_seconds", "From a container's request to its running program.",
              &m->time[METRIC_TIME_RESTORE]);
    (void)pthread_mutex_unlock(&m->lock);
}
