#include "engine/precopy.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/halt.h"
#include "container/maps.h"
#include "container/proc_tree.h"
#include "container/task.h"
#include "container/written.h"
#include "engine/copier.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ROUNDS_MAX 6U
#define STOP_NS (2 * CLOCK_S)                     /* that a tree may take to stand still */
#define LITTLE ((uint64_t)(4 << 20) / PAGES_SIZE) /* pages: not worth another round */
#define SMALLEST ((uint64_t)256 << 10) /* bytes of a mapping that CRIU leaves to us (hidden.h) */

struct range {
    uint64_t address, pages;
};

struct process {
    pid_t pid, inner; /* inner: in its own PID namespace */
    uint64_t start;   /* with the PID it names a process for ever */
    int uffd;
    bool seen;           /* in this round */
    struct known known;  /* of the rounds until now */
    struct known next;   /* what of it has been confirmed */
    struct range *dirty; /* to be copied in this round */
    size_t n_dirty;
    uint64_t dirty_pages;
};

struct precopy {
    pid_t root;
    struct page_writer *writer;
    const struct earlier *earlier;
    struct process *list;
    size_t n;
    uint64_t dirty; /* pages of the last round */
};

bool precopy_can_do_without(enum rc rc)
{
    return rc == RC_UNSUPPORTED || rc == RC_DENIED || rc == RC_CONFLICT || rc == RC_TIMEOUT ||
           rc == RC_NOT_FOUND;
}

static void process_done(struct process *p)
{
    fd_closep(&p->uffd);
    known_done(&p->known);
    known_done(&p->next);
    free(p->dirty);
}

void precopy_freep(struct precopy **pp)
{
    struct precopy *p = STEAL(*pp);
    if (!p)
        return;
    for (size_t i = 0; i < p->n; i++)
        process_done(&p->list[i]);
    free(p->list);
    free(p);
}

/* ---- the table of processes ---- */

static struct process *find(struct precopy *p, pid_t pid)
{
    struct proc_facts f;
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].pid == pid)
            return proc_facts_read(pid, &f, NULL) == RC_OK && f.start == p->list[i].start
                       ? &p->list[i]
                       : NULL;
    return NULL;
}

static struct process *add_process(struct precopy *p, const struct proc_facts *f)
{
    p->list = mem_realloc(p->list, (p->n + 1) * sizeof(*p->list));
    p->list[p->n] =
        (struct process){.pid = f->pid, .inner = f->inner, .start = f->start, .uffd = -1};
    return &p->list[p->n++];
}

/* Those of the last round that are no longer there. */
static void drop_unseen(struct precopy *p)
{
    size_t kept = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (p->list[i].seen)
            p->list[kept++] = p->list[i];
        else
            process_done(&p->list[i]);
    }
    p->n = kept;
}

/* ---- a round, with the tree standing still ---- */

static void add_dirty(void *arg, uint64_t address, uint64_t pages)
{
    struct process *p = arg;
    struct range *last = p->n_dirty ? &p->dirty[p->n_dirty - 1] : NULL;
    p->dirty_pages += pages;
    if (last && last->address + last->pages * PAGES_SIZE == address) {
        last->pages += pages;
        return;
    }
    if (!p->dirty || (p->n_dirty & (p->n_dirty - 1)) == 0)
        p->dirty = mem_realloc(p->dirty, (p->n_dirty ? p->n_dirty * 2 : 1) * sizeof(*p->dirty));
    p->dirty[p->n_dirty++] = (struct range){address, pages};
}

struct mark {
    struct process *process;
    bool registered; /* the mapping, before this round */
};

static enum rc mark_run(void *arg, const struct pages_run *run, struct err *err)
{
    const struct mark *m = arg;
    struct process *p = m->process;
    (void)err;
    if (m->registered && run->unwritten)
        known_keep(&p->known, run->address, run->pages, &p->next, add_dirty, p);
    else
        add_dirty(p, run->address, run->pages);
    return RC_OK;
}

/* All of it is registered, also what is not read ahead since it is small or protected just now: the
 * kernel does not join neighbours that differ in that, and would refuse the program a mremap() over
 * what was one mapping before the program protected a part of it for a moment. */
static bool is_private_memory(const struct map *m)
{
    return !(m->flags & MAPS_SHARES) && m->ino == 0 &&
           (!m->name[0] || strcmp(m->name, "[heap]") == 0 || strncmp(m->name, "[anon:", 6) == 0);
}

/* As tools/criu/pages.c chooses what CRIU does not see.  If the two differ, less is read ahead. */
bool precopy_takes(const struct map *m)
{
    return is_private_memory(m) &&
           (m->flags & (MAPS_READ | MAPS_WRITE)) == (MAPS_READ | MAPS_WRITE) &&
           m->end - m->start >= SMALLEST;
}

/* errors RC_NOT_FOUND: the userfaultfd is of an address space that is gone */
static enum rc mark_mapping(struct process *p, int pagemap, const struct map *m, struct err *err)
{
    bool ours = precopy_takes(m);
    struct mark mark = {p, ours && pages_registered(pagemap, m->start, m->end)};
    enum rc rc = written_register(p->uffd, m->start, m->end, err);
    if (rc == RC_CONFLICT || rc == RC_UNSUPPORTED)
        return RC_OK; /* nothing is known of it, so it is copied in the freeze */
    return rc || !ours ? rc : pages_protect(pagemap, m->start, m->end, mark_run, &mark, err);
}

static enum rc mark_process(struct process *p, struct err *err)
{
    int fd = -1;
    CLEANUP(maps_done) struct maps maps = {0};
    CLEANUP(fd_closep) int proc = -1;
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = task_open(proc, p->pid, &task, err);
    if (!rc)
        rc = maps_read(task, false, &maps, err);
    if (!rc)
        rc = pages_open(p->pid, &fd, err);
    CLEANUP(fd_closep) int pagemap = fd;
    for (size_t i = 0; !rc && i < maps.n; i++)
        if (is_private_memory(&maps.list[i]))
            rc = mark_mapping(p, pagemap, &maps.list[i], err);
    return rc;
}

/* A process that has executed another program has a new address space, of which nothing is known.
 */
static enum rc begin_anew(struct process *p, struct halt *h, struct err *err)
{
    fd_closep(&p->uffd);
    known_done(&p->known);
    known_done(&p->next);
    p->n_dirty = 0;
    p->dirty_pages = 0;
    return written_attach(h, p->pid, &p->uffd, err);
}

static enum rc enter(struct precopy *pre, struct halt *h, pid_t pid, struct err *err)
{
    struct proc_facts f;
    enum rc rc = proc_facts_read(pid, &f, err);
    if (!rc)
        rc = written_check(pid, err);
    if (rc)
        return rc;
    struct process *p = find(pre, pid);
    if (!p)
        p = add_process(pre, &f);
    p->seen = true;
    rc = p->uffd < 0 ? begin_anew(p, h, err) : RC_OK;
    if (!rc)
        rc = mark_process(p, err);
    if (rc != RC_NOT_FOUND)
        return rc;
    rc = begin_anew(p, h, err);
    return rc ? rc : mark_process(p, err);
}

struct stop {
    struct precopy *precopy;
    enum rc rc;
    struct err err;
};

/* In a thread of its own (container/halt.h). */
static void *stand_still(void *arg)
{
    struct stop *s = arg;
    CLEANUP(halt_endp) struct halt *h = NULL;
    const pid_t *pids = NULL;
    s->rc = halt_tree(s->precopy->root, clock_now() + STOP_NS, &h, &s->err);
    size_t n = s->rc ? 0 : halt_processes(h, &pids);
    for (size_t i = 0; !s->rc && i < n; i++)
        s->rc = enter(s->precopy, h, pids[i], &s->err);
    return NULL;
}

/* out_dirty: pages to be copied now */
static enum rc begin_round(struct precopy *p, uint64_t *out_dirty, struct err *err)
{
    struct stop s = {.precopy = p, .err = ERR_INIT};
    pthread_t thread;
    for (size_t i = 0; i < p->n; i++)
        p->list[i].seen = false;
    if (pthread_create(&thread, NULL, stand_still, &s) != 0)
        return err_set(err, RC_UNSUPPORTED, "no thread to stop the program from");
    (void)pthread_join(thread, NULL);
    if (s.rc) {
        if (err)
            *err = s.err;
        return s.rc;
    }
    drop_unseen(p);
    *out_dirty = 0;
    for (size_t i = 0; i < p->n; i++) {
        struct process *x = &p->list[i];
        known_done(&x->known);
        x->known = x->next;
        x->next = (struct known){0};
        *out_dirty += x->dirty_pages;
    }
    return RC_OK;
}

/* ---- copying, while the tree runs ---- */

static enum rc plan(const struct precopy *pre, struct process *p, struct copier *c, struct err *err)
{
    struct page_input *draft = NULL;
    char map[40];
    uint64_t at = 0;
    enum rc rc =
        p->dirty_pages ? page_writer_draft(pre->writer, p->dirty_pages, &draft, err) : RC_OK;
    (void)snprintf(map, sizeof(map), "pagemap-%d.img", (int)p->inner);
    for (size_t i = 0; !rc && i < p->n_dirty; i++) {
        earlier_tell(pre->earlier, map, p->dirty[i].address, p->dirty[i].pages, pre->writer, draft,
                     at);
        copier_add(c, p->pid, p->dirty[i].address, p->dirty[i].pages, draft, at);
        at += p->dirty[i].pages;
    }
    p->n_dirty = 0;
    p->dirty_pages = 0;
    return rc;
}

/* What could be read is known from now on.  Pieces are in the order of processes. */
static void note(struct precopy *p, const struct copier *c)
{
    size_t at = 0;
    for (size_t i = 0; i < c->n; i++) {
        const struct copier_piece *x = &c->list[i];
        while (p->list[at].pid != x->pid)
            at++;
        if (!x->lost)
            known_add(&p->list[at].known,
                      &(struct known_run){x->address, x->n, x->input, x->first});
    }
    for (size_t i = 0; i < p->n; i++)
        known_sort(&p->list[i].known);
}

static enum rc copy_dirty(struct precopy *p, struct err *err)
{
    CLEANUP(copier_done) struct copier c = {0};
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < p->n; i++)
        rc = plan(p, &p->list[i], &c, err);
    if (!rc)
        rc = copier_run(&c, p->writer, true, err);
    if (!rc)
        rc = page_writer_drain(p->writer, err);
    if (!rc)
        note(p, &c);
    return rc;
}

enum rc precopy_open(pid_t root, struct page_writer *w, struct precopy **out, struct err *err)
{
    if (!pages_can_scan() || !written_can())
        return err_set(err, RC_UNSUPPORTED,
                       "this machine cannot tell what a program writes (x86-64, Linux >= 6.7)");
    struct precopy *p = mem_zalloc(sizeof(*p));
    *p = (struct precopy){.root = root, .writer = w};
    *out = p;
    return RC_OK;
}

enum rc precopy_round(struct precopy *p, uint64_t *out_pages, struct err *err)
{
    uint64_t dirty = 0;
    enum rc rc = begin_round(p, &dirty, err);
    if (!rc)
        rc = copy_dirty(p, err);
    if (!rc)
        *out_pages = p->dirty = dirty;
    return rc;
}

uint64_t precopy_expected(const struct precopy *p)
{
    return p->dirty;
}

enum rc precopy_run(pid_t root, struct page_writer *w, const struct earlier *e, uint64_t deadline,
                    struct precopy **out, struct err *err)
{
    CLEANUP(precopy_freep) struct precopy *p = NULL;
    uint64_t before = UINT64_MAX, dirty = 0;
    enum rc rc = precopy_open(root, w, &p, err);
    if (p)
        p->earlier = e;
    for (unsigned round = 0; p && !rc && round < ROUNDS_MAX; round++) {
        rc = precopy_round(p, &dirty, err);
        /* More rounds are of use only while each has clearly less to do than the one before. */
        if (dirty <= LITTLE || dirty > before / 4 * 3 || (deadline && clock_now() > deadline))
            break;
        before = dirty;
    }
    if (!rc)
        *out = STEAL(p);
    return rc;
}

/* ---- the end, with the tree frozen ---- */

struct confirm {
    struct process *process;
    struct known now;
    pages_visit *visit;
    void *arg;
};

static void nothing_known(void *arg, uint64_t address, uint64_t pages)
{
    (void)arg;
    (void)address;
    (void)pages;
}

static enum rc confirm_run(void *arg, const struct pages_run *run, struct err *err)
{
    struct confirm *c = arg;
    if (run->unwritten)
        known_keep(&c->process->known, run->address, run->pages, &c->now, nothing_known, NULL);
    return c->visit(c->arg, run, err);
}

enum rc precopy_scan(struct precopy *p, pid_t pid, int pagemap, uint64_t start, uint64_t end,
                     pages_visit *visit, void *arg, struct err *err)
{
    struct process *x = find(p, pid);
    if (!x)
        return pages_scan(pagemap, start, end, visit, arg, err);
    struct confirm c = {.process = x, .visit = visit, .arg = arg};
    enum rc rc = pages_scan(pagemap, start, end, confirm_run, &c, err);
    /* That it is our registration, and of the address space that is there now. */
    if (!rc && c.now.n && written_register(x->uffd, start, end, NULL) == RC_OK)
        for (size_t i = 0; i < c.now.n; i++)
            known_add(&x->next, &c.now.list[i]);
    known_done(&c.now);
    return rc;
}

const struct known *precopy_confirmed(struct precopy *p, pid_t pid)
{
    static const struct known nothing = {0};
    struct process *x = find(p, pid);
    if (!x)
        return &nothing;
    known_sort(&x->next);
    return &x->next;
}
