#include "agent/table.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "harness/test.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

/* A pod of one container, as it matters here. */
static void put(struct table *t, const char *uid, const char *container, bool ready)
{
    struct kube_pod p = {.name = mem_strdup("a"),
                         .name_space = mem_strdup("b"),
                         .uid = mem_strdup(uid),
                         .node = mem_strdup("n"),
                         .running = true,
                         .ready = ready};
    p.containers = mem_zalloc(sizeof(*p.containers));
    p.n_containers = 1;
    p.containers[0] = (struct kube_pod_container){.name = mem_strdup("main"),
                                                  .id = mem_asprintf("containerd://%s", container),
                                                  .running = true};
    p.labels = mem_zalloc(sizeof(*p.labels));
    p.n_labels = 1;
    p.labels[0] =
        (struct kube_pod_pair){mem_strdup("nvidia.com/checkpoint-source"), mem_strdup("true")};
    table_put(t, &p);
    CHECK(!p.name);
}

static const struct kube_pod *take(struct table *t)
{
    return table_take(t, "n", clock_now());
}

TEST(a_pod_is_taken_once_for_each_life_of_its_container)
{
    CLEANUP(table_freep) struct table *t = table_new();
    put(t, "u", "c1", false);
    CHECK(!take(t));
    put(t, "u", "c1", true);
    const struct kube_pod *p = take(t);
    CHECK(p);
    table_give(t, p, "c1", 0);
    CHECK(!take(t));
    put(t, "u", "c1", true); /* news of the same life */
    CHECK(!take(t));
    put(t, "u", "c2", true); /* it was started again */
    p = take(t);
    CHECK(p);
    table_give(t, p, "c2", 0);
    put(t, "v", "c2", true); /* another pod of the same name */
    p = take(t);
    CHECK(p);
    table_give(t, p, NULL, 0);
}

TEST(a_pod_that_was_taken_stays_while_it_changes_and_goes)
{
    CLEANUP(table_freep) struct table *t = table_new();
    put(t, "u", "c1", true);
    const struct kube_pod *p = take(t);
    CHECK(p);
    put(t, "u", "c2", true);
    CHECK_STR(p->containers[0].id, "containerd://c1");
    table_remove(t, "u");
    CHECK_STR(p->uid, "u");
    table_give(t, p, "c1", 0);
    CHECK(!take(t));
}

TEST(what_a_list_does_not_have_any_more_is_gone)
{
    size_t pods = 0, waiting = 0;
    CLEANUP(table_freep) struct table *t = table_new();
    put(t, "u", "c1", true);
    put(t, "v", "c2", true);
    put(t, "w", "c3", false);
    table_count(t, "n", &pods, &waiting);
    CHECK(pods == 3 && waiting == 2);
    table_begin_list(t);
    put(t, "v", "c2", true);
    table_end_list(t);
    table_count(t, "n", &pods, &waiting);
    CHECK(pods == 1 && waiting == 1);
}

TEST(a_pod_is_not_taken_before_it_is_due)
{
    CLEANUP(table_freep) struct table *t = table_new();
    put(t, "u", "c1", true);
    const struct kube_pod *p = take(t);
    uint64_t due = clock_now() + 50 * CLOCK_MS;
    table_give(t, p, NULL, due);
    CHECK(!take(t));
    put(t, "u", "c1", true); /* news do not make it due */
    CHECK(!take(t));
    p = table_take(t, "n", clock_now() + 10 * CLOCK_S);
    CHECK(p && clock_now() >= due);
    table_give(t, p, NULL, 0);
}

static void *wake_later(void *arg)
{
    const struct timespec pause = {0, 30000000};
    (void)nanosleep(&pause, NULL);
    table_wake(arg);
    return NULL;
}

TEST(waiting_ends_when_it_is_woken)
{
    pthread_t thread;
    CLEANUP(table_freep) struct table *t = table_new();
    CHECK(pthread_create(&thread, NULL, wake_later, t) == 0);
    uint64_t begun = clock_now();
    CHECK(!table_take(t, "n", begun + 20 * CLOCK_S));
    CHECK(clock_now() - begun < 10 * CLOCK_S);
    CHECK(pthread_join(thread, NULL) == 0);
}
