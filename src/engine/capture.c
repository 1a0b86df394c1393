#include "engine/capture.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/pages.h"
#include "container/proc_tree.h"
#include "criu/hidden.h"
#include "criu/pagemap.h"
#include "criu/session.h"
#include "store/page_writer.h"
#include "store/recent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define SMALL_BUFFERS ((uint64_t)32 << 20) /* where storing keeps up with copying, or has to */
#define THREADS_MAX 16
#define PIPE_BYTES ((uint64_t)1 << 20) /* that CRIU puts into one pipe: two descriptors */
#define SPARE_DESCRIPTORS 2048U        /* that CRIU needs for other things */

enum mode { MODE_HIDE, MODE_LAZY, MODE_IMAGES };

struct capture {
    enum mode mode;
    bool outside;
    int staging;
    struct store_hold *hold;
    int file;      /* a memory file: what was hidden, or CRIU's configuration */
    int socket[2]; /* lazy: CRIU's end, and ours */
    char text[64]; /* of the environment, or the path of the configuration */
    struct page_writer *writer;
    struct cr_pagemaps maps; /* after copying */
};

static unsigned thread_count(void)
{
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > THREADS_MAX ? THREADS_MAX : (unsigned)n;
}

/* CRIU needs two descriptors for each MiB that it maps into pipes. */
static bool fits_in_pipes(uint64_t rss_bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return false;
    return rss_bytes / PIPE_BYTES * 2 + SPARE_DESCRIPTORS <= limit.rlim_max;
}

static enum mode choose_mode(const struct capture_options *o)
{
    if (cr_can_hide(o->criu) && pages_can_scan())
        return MODE_HIDE;
    return fits_in_pipes(o->rss_bytes) ? MODE_LAZY : MODE_IMAGES;
}

/* MemAvailable: what can be had without swapping. */
static uint64_t available_memory(void)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    static const char key[] = "MemAvailable:";
    if (fs_read_file(AT_FDCWD, "/proc/meminfo", 1 << 16, &text, NULL) != RC_OK)
        return 0;
    const char *at = strstr(buf_str(&text), key);
    return at ? strtoull(at + sizeof(key) - 1, NULL, 10) << 10 : 0;
}

static uint64_t buffer_size(const struct capture_options *o)
{
    uint64_t budget = o->budget_bytes ? o->budget_bytes : available_memory() / 4;
    uint64_t want = o->hold ? o->rss_bytes + o->rss_bytes / 16 + SMALL_BUFFERS : SMALL_BUFFERS;
    return want < budget ? want : budget;
}

enum rc capture_open(const struct capture_options *o, struct capture **out, struct err *err)
{
    CLEANUP(capture_freep) struct capture *c = mem_zalloc(sizeof(*c));
    *c = (struct capture){.mode = choose_mode(o),
                          .outside = o->outside,
                          .staging = o->staging,
                          .file = -1,
                          .socket = {-1, -1}};
    struct page_writer_options w = {.backend = store_backend(o->store),
                                    .codec = o->codec,
                                    .domain = o->domain,
                                    .alone = o->alone,
                                    .threads = thread_count(),
                                    .buffer_bytes = buffer_size(o),
                                    .expect_pages = o->rss_bytes / MEMORY_PAGE};
    char **prefer = NULL;
    enum rc rc = store_hold_packs(o->store, false, &c->hold, err);
    if (rc)
        return rc;
    c->file = memfd_create("chrek-capture", MFD_CLOEXEC);
    if (c->file < 0 ||
        (c->mode == MODE_LAZY && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->socket) < 0))
        return err_sys(err, "make descriptors for CRIU");
    rc = store_recent_packs(o->store, o->name, &prefer, &w.n_prefer, err);
    w.prefer = prefer;
    if (!rc)
        rc = page_writer_open(&w, &c->writer, err);
    store_free_ids(prefer);
    if (rc)
        return rc;
    page_writer_hold(c->writer, o->hold);
    *out = STEAL(c);
    return RC_OK;
}

enum rc capture_launch(struct capture *c, size_t first, struct capture_launch *out, struct err *err)
{
    char config[32];
    struct capture_launch l = {.fds = {c->file, c->socket[0]}};
    if (c->mode == MODE_HIDE) {
        (void)snprintf(c->text, sizeof(c->text), CR_HIDDEN_VARIABLE "=%d", cr_session_fd(first));
        l.n_fds = 1;
        l.env = c->text;
    } else if (c->mode == MODE_LAZY) {
        /* Nobody will ask for pages: CRIU sees the end of the conversation when it listens. */
        fd_closep(&c->socket[1]);
        int n = snprintf(config, sizeof(config), "ps-socket %d\n", cr_session_fd(first + 1));
        enum rc rc = sys_write_all(c->file, config, (size_t)n, err);
        if (rc)
            return rc;
        (void)snprintf(c->text, sizeof(c->text), "/proc/self/fd/%d", cr_session_fd(first));
        l.n_fds = 2;
        l.config_file = c->text;
        l.lazy_pages = true;
    }
    *out = l;
    return RC_OK;
}

const uint64_t *capture_counter(const struct capture *c)
{
    return page_writer_counter(c->writer);
}

/* ---- copying ---- */

/* Consecutive pages of one process. */
struct piece {
    pid_t pid;
    uint64_t address;
    struct page_input *input;
    uint64_t first;
    unsigned n;
};

struct copy {
    struct capture *capture;
    struct piece *pieces;
    size_t n_pieces, next; /* next: atomic */
    pthread_mutex_t lock;
    enum rc rc;
    struct err err;
};

static void add_piece(struct copy *c, struct piece p)
{
    if ((c->n_pieces & (c->n_pieces - 1)) == 0)
        c->pieces =
            mem_realloc(c->pieces, (c->n_pieces ? c->n_pieces * 2 : 1) * sizeof(*c->pieces));
    c->pieces[c->n_pieces++] = p;
}

/* Memory that the process itself may not read is read through its file in /proc. */
static enum rc read_forced(const struct piece *p, uint8_t *to, struct err *err)
{
    char path[40];
    size_t want = p->n * MEMORY_PAGE, got = 0;
    (void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)p->pid);
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    while (got < want) {
        ssize_t n = pread(fd, to + got, want - got, (off_t)(p->address + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return err_sys(err, "read memory of process %d at %#jx", (int)p->pid,
                           (uintmax_t)(p->address + got));
        got += (size_t)n;
    }
    return RC_OK;
}

static enum rc copy_piece(struct capture *c, const struct piece *p, struct err *err)
{
    struct page_block *b = page_writer_take(c->writer, err);
    if (!b)
        return err ? err->rc : RC_IO;
    struct iovec to = {page_block_data(b), p->n * MEMORY_PAGE};
    // NOLINTNEXTLINE(performance-no-int-to-ptr): an address of another process
    struct iovec from = {(void *)(uintptr_t)p->address, p->n * MEMORY_PAGE};
    enum rc rc = RC_OK;
    if (process_vm_readv(p->pid, &to, 1, &from, 1, 0) != (ssize_t)to.iov_len)
        rc = read_forced(p, to.iov_base, err);
    page_writer_give(c->writer, b, p->input, p->first, rc ? 0 : p->n);
    return rc;
}

static void *copy_pieces(void *arg)
{
    struct copy *c = arg;
    for (;;) {
        struct err err = ERR_INIT;
        size_t i = __atomic_fetch_add(&c->next, 1, __ATOMIC_RELAXED);
        if (i >= c->n_pieces)
            return NULL;
        enum rc rc = copy_piece(c->capture, &c->pieces[i], &err);
        if (!rc)
            continue;
        __atomic_store_n(&c->next, c->n_pieces, __ATOMIC_RELAXED); /* the others may stop */
        (void)pthread_mutex_lock(&c->lock);
        if (!c->rc) {
            c->rc = rc;
            c->err = err;
        }
        (void)pthread_mutex_unlock(&c->lock);
    }
}

static pid_t outer_pid(const struct proc_facts *tasks, size_t n, uint32_t inner)
{
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)tasks[i].inner == inner)
            return tasks[i].pid;
    return 0;
}

/* The lazy pages of one page map, in pieces of a buffer. */
static enum rc plan(struct copy *c, const struct cr_pagemap *map, pid_t pid, struct err *err)
{
    struct page_input *in = NULL;
    enum rc rc =
        page_writer_input(c->capture->writer, map->pages_id | MEMORY_LAZY, map->absent, &in, err);
    for (size_t i = 0; !rc && i < map->n_runs; i++) {
        const struct cr_run *r = &map->runs[i];
        for (uint64_t at = 0; !(r->flags & CR_RUN_PRESENT) && at < r->pages;) {
            uint64_t left = r->pages - at;
            unsigned n = left < MEMORY_CHUNK_PAGES ? (unsigned)left : MEMORY_CHUNK_PAGES;
            add_piece(c, (struct piece){pid, r->address + at * MEMORY_PAGE, in, r->at + at, n});
            at += n;
        }
    }
    return rc;
}

/* ---- what was hidden ---- */

struct runs {
    struct cr_run *list;
    size_t n;
};

static enum rc take_run(void *arg, const struct pages_run *run, struct err *err)
{
    struct runs *r = arg;
    (void)err;
    if ((r->n & (r->n - 1)) == 0)
        r->list = mem_realloc(r->list, (r->n ? r->n * 2 : 1) * sizeof(*r->list));
    r->list[r->n++] = (struct cr_run){.address = run->address, .pages = run->pages};
    return RC_OK;
}

/* The pages that one process has in the ranges list[0..n). */
static enum rc find_pages(pid_t pid, const struct cr_hidden *list, size_t n, struct runs *out,
                          struct err *err)
{
    int fd = -1;
    enum rc rc = pages_open(pid, &fd, err);
    CLEANUP(fd_closep) int pagemap = fd;
    for (size_t i = 0; !rc && i < n; i++)
        rc = pages_scan(pagemap, list[i].start, list[i].end, take_run, out, err);
    return rc;
}

static struct cr_pagemap *map_of(const struct cr_pagemaps *maps, uint32_t pid)
{
    for (size_t i = 0; i < maps->n; i++)
        if (maps->list[i].pid == pid)
            return &maps->list[i];
    return NULL;
}

/* A process by the PID that CRIU knows it by, while images have its own. */
static const struct proc_facts *task_of(const struct capture *c, const struct proc_facts *tasks,
                                        size_t n, uint32_t pid)
{
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)(c->outside ? tasks[i].pid : tasks[i].inner) == pid)
            return &tasks[i];
    return NULL;
}

static enum rc add_hidden(struct capture *c, const struct proc_facts *tasks, size_t n_tasks,
                          struct err *err)
{
    CLEANUP(mem_freep) struct cr_hidden *list = NULL;
    size_t n = 0, next = 0;
    enum rc rc = cr_hidden_read(c->file, &list, &n, err);
    for (size_t i = 0; !rc && i < n; i = next) {
        struct runs runs = {0};
        uint32_t pid = list[i].pid;
        const struct proc_facts *task = task_of(c, tasks, n_tasks, pid);
        struct cr_pagemap *map = task ? map_of(&c->maps, (uint32_t)task->inner) : NULL;
        for (next = i; next < n && list[next].pid == pid;)
            next++;
        if (!map)
            return err_set(err, RC_NOT_FOUND, "process %u of the tree is not to be found", pid);
        rc = find_pages(task->pid, list + i, next - i, &runs, err);
        if (!rc)
            rc = cr_pagemap_add(map, runs.list, runs.n, err);
        free(runs.list);
    }
    return rc;
}

static enum rc plan_all(struct copy *c, pid_t in_namespace, struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *tasks = NULL;
    struct cr_pagemaps *maps = &c->capture->maps;
    size_t n_tasks = 0;
    enum rc rc = cr_pagemaps_load(c->capture->staging, maps, err);
    if (!rc)
        rc = proc_in_namespace(in_namespace, &tasks, &n_tasks, err);
    if (!rc && c->capture->mode == MODE_HIDE)
        rc = add_hidden(c->capture, tasks, n_tasks, err);
    for (size_t i = 0; !rc && i < maps->n; i++) {
        const struct cr_pagemap *map = &maps->list[i];
        pid_t pid = outer_pid(tasks, n_tasks, map->pid);
        if (map->absent && (!pid || !map->pid))
            rc = err_set(err, RC_NOT_FOUND, "process %u of the tree is not to be found", map->pid);
        else if (map->absent)
            rc = plan(c, map, pid, err);
    }
    return rc;
}

enum rc capture_copy(struct capture *capture, pid_t in_namespace, struct err *err)
{
    struct copy c = {.capture = capture, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t others[THREADS_MAX];
    unsigned started = 0;
    enum rc rc = plan_all(&c, in_namespace, err);
    while (!rc && started + 1 < thread_count() &&
           pthread_create(&others[started], NULL, copy_pieces, &c) == 0)
        started++;
    if (!rc)
        (void)copy_pieces(&c);
    for (unsigned i = 0; i < started; i++)
        (void)pthread_join(others[i], NULL);
    (void)pthread_mutex_destroy(&c.lock);
    free(c.pieces);
    if (!rc && c.rc) {
        rc = c.rc;
        if (err)
            *err = c.err;
    }
    return rc ? err_ctx(err, rc, "copy memory") : RC_OK;
}

/* ---- storing ---- */

static enum rc pack_image(struct capture *c, const char *name, struct err *err)
{
    uint32_t id = 0;
    if (sscanf(name, "pages-%" SCNu32 ".img", &id) != 1 || id >= MEMORY_LAZY)
        return RC_OK;
    CLEANUP(fd_closep) int fd = sys_openat(c->staging, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    enum rc rc = page_writer_file(c->writer, id, fd, err);
    if (!rc && sys_unlinkat(c->staging, name, 0) < 0)
        rc = err_sys(err, "remove '%s'", name);
    return rc;
}

static enum rc pack_images(struct capture *c, struct err *err)
{
    int fd = sys_openat(c->staging, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    enum rc rc = RC_OK;
    if (!dir) {
        rc = err_sys(err, "read the directory of images");
        fd_closep(&fd);
        return rc;
    }
    for (const struct dirent *e; !rc && (e = readdir(dir));)
        rc = pack_image(c, e->d_name, err);
    (void)closedir(dir);
    return rc;
}

/* CRIU's page maps do not have what was hidden from it. */
static enum rc save_pagemaps(const struct capture *c, struct err *err)
{
    for (size_t i = 0; c->mode == MODE_HIDE && i < c->maps.n; i++) {
        const struct cr_pagemap *m = &c->maps.list[i];
        enum rc rc =
            m->absent ? cr_pagemap_save(c->staging, m->name, m->pages_id, m->runs, m->n_runs, err)
                      : RC_OK;
        if (rc)
            return rc;
    }
    return RC_OK;
}

enum rc capture_store(struct capture *c, struct metadata *meta, struct err *err)
{
    CLEANUP(memory_done) struct memory m = {0};
    CLEANUP(buf_done) struct buf text = {.max = MEMORY_MAX};
    struct page_writer_totals t;
    page_writer_hold(c->writer, false);
    enum rc rc = save_pagemaps(c, err);
    if (!rc)
        rc = pack_images(c, err);
    if (!rc)
        rc = page_writer_finish(c->writer, &m, &t, err);
    if (rc)
        return err_ctx(err, rc, "store memory");
    memory_format(&m, &text);
    if (text.overflowed)
        return err_set(err, RC_TOO_BIG, "the map of this memory has more than %zu MiB",
                       MEMORY_MAX >> 20);
    meta->packed = true;
    meta->pages_bytes = t.pages * MEMORY_PAGE;
    meta->zero_bytes = t.zero * MEMORY_PAGE;
    meta->known_bytes = t.known * MEMORY_PAGE;
    meta->packed_bytes = t.written;
    return fs_write_atomic(c->staging, MEMORY_NAME, text.data, text.len, 0600, err);
}

void capture_freep(struct capture **p)
{
    struct capture *c = STEAL(*p);
    if (!c)
        return;
    page_writer_freep(&c->writer);
    fd_closep(&c->socket[0]);
    fd_closep(&c->socket[1]);
    fd_closep(&c->file);
    cr_pagemaps_done(&c->maps);
    store_hold_freep(&c->hold);
    free(c);
}
