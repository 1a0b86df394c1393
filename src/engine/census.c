#include "engine/census.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/maps.h"
#include "container/task.h"

#include <pthread.h>
#include <stdlib.h>

/* A mapping, and where its pages stand in the list of runs. */
struct place {
    pid_t pid;
    uint64_t start, end;
    size_t first, n;
};

struct census {
    pid_t neighbour;
    struct precopy *precopy;
    pthread_t thread;
    bool running;
    enum rc rc; /* of listing processes */
    struct err err;
    struct proc_facts *tasks;
    size_t n_tasks;
    struct place *places; /* of each process by address */
    size_t n_places;
    struct pages_run *runs;
    size_t n_runs;
};

/* ---- looking ---- */

static enum rc add_run(void *arg, const struct pages_run *run, struct err *err)
{
    struct census *c = arg;
    struct pages_run *last =
        c->n_runs > c->places[c->n_places].first ? &c->runs[c->n_runs - 1] : NULL;
    (void)err;
    if (last && last->address + last->pages * PAGES_SIZE == run->address) {
        last->pages += run->pages;
        return RC_OK;
    }
    if (!c->runs || (c->n_runs & (c->n_runs - 1)) == 0)
        c->runs = mem_realloc(c->runs, (c->n_runs ? c->n_runs * 2 : 1) * sizeof(*c->runs));
    c->runs[c->n_runs++] = (struct pages_run){.address = run->address, .pages = run->pages};
    return RC_OK;
}

static enum rc look_now(const struct census *c, pid_t pid, int pagemap, uint64_t start,
                        uint64_t end, pages_visit *visit, void *arg, struct err *err)
{
    return c->precopy ? precopy_scan(c->precopy, pid, pagemap, start, end, visit, arg, err)
                      : pages_scan(pagemap, start, end, visit, arg, err);
}

static enum rc look_at_mapping(struct census *c, pid_t pid, int pagemap, const struct map *m)
{
    if ((c->n_places & (c->n_places - 1)) == 0)
        c->places =
            mem_realloc(c->places, (c->n_places ? c->n_places * 2 : 1) * sizeof(*c->places));
    struct place *p = &c->places[c->n_places];
    *p = (struct place){.pid = pid, .start = m->start, .end = m->end, .first = c->n_runs};
    enum rc rc = look_now(c, pid, pagemap, m->start, m->end, add_run, c, NULL);
    p->n = c->n_runs - p->first;
    c->n_places += !rc;
    return rc;
}

/* What cannot be found out now is looked at when it is wanted, which tells the reason. */
static void look_at_process(struct census *c, pid_t pid)
{
    int fd = -1;
    CLEANUP(maps_done) struct maps maps = {0};
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = task_open_proc("/proc", &proc, NULL);
    if (!rc)
        rc = task_open(proc, pid, &task, NULL);
    if (!rc)
        rc = maps_read(task, false, &maps, NULL);
    if (!rc)
        rc = pages_open(pid, &fd, NULL);
    CLEANUP(fd_closep) int pagemap = fd;
    for (size_t i = 0; !rc && i < maps.n; i++)
        if (precopy_takes(&maps.list[i]))
            rc = look_at_mapping(c, pid, pagemap, &maps.list[i]);
}

/* Of the namespace only the tree has a tracer, who is CRIU, or is nobody that a checkpoint
 * survives. */
static void *look(void *arg)
{
    struct census *c = arg;
    c->rc = proc_in_namespace(c->neighbour, &c->tasks, &c->n_tasks, &c->err);
    for (size_t i = 0; !c->rc && i < c->n_tasks; i++)
        if (c->tasks[i].tracer)
            look_at_process(c, c->tasks[i].pid);
    return NULL;
}

struct census *census_begin(pid_t neighbour, struct precopy *precopy)
{
    struct census *c = mem_zalloc(sizeof(*c));
    *c = (struct census){.neighbour = neighbour, .precopy = precopy, .err = ERR_INIT};
    c->running = pthread_create(&c->thread, NULL, look, c) == 0;
    if (!c->running)
        (void)look(c);
    return c;
}

static void finish(struct census *c)
{
    if (c->running)
        (void)pthread_join(c->thread, NULL);
    c->running = false;
}

/* ---- telling ---- */

enum rc census_tasks(struct census *c, const struct proc_facts **out, size_t *out_n,
                     struct err *err)
{
    finish(c);
    if (c->rc && err)
        *err = c->err;
    *out = c->tasks;
    *out_n = c->n_tasks;
    return c->rc;
}

/* The first place of a process that ends after an address, or NULL. */
static const struct place *place_after(const struct census *c, pid_t pid, uint64_t address)
{
    for (size_t i = 0; i < c->n_places; i++)
        if (c->places[i].pid == pid && c->places[i].end > address)
            return &c->places[i];
    return NULL;
}

static enum rc tell(const struct census *c, const struct place *p, uint64_t start, uint64_t end,
                    pages_visit *visit, void *arg, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = p->first; !rc && i < p->first + p->n; i++) {
        const struct pages_run *r = &c->runs[i];
        uint64_t until = r->address + r->pages * PAGES_SIZE;
        uint64_t from = r->address > start ? r->address : start;
        until = until < end ? until : end;
        struct pages_run part = {.address = from, .pages = (until - from) / PAGES_SIZE};
        if (from < until)
            rc = visit(arg, &part, err);
    }
    return rc;
}

enum rc census_scan(struct census *c, pid_t pid, int pagemap, uint64_t start, uint64_t end,
                    pages_visit *visit, void *arg, struct err *err)
{
    enum rc rc = RC_OK;
    finish(c);
    while (!rc && start < end) {
        const struct place *p = place_after(c, pid, start);
        bool known = p && p->start <= start;
        uint64_t stop = !p ? end : known ? p->end : p->start;
        stop = stop < end ? stop : end;
        rc = known ? tell(c, p, start, stop, visit, arg, err)
                   : look_now(c, pid, pagemap, start, stop, visit, arg, err);
        start = stop;
    }
    return rc;
}

void census_endp(struct census **pc)
{
    struct census *c = STEAL(*pc);
    if (!c)
        return;
    finish(c);
    free(c->tasks);
    free(c->places);
    free(c->runs);
    free(c);
}
