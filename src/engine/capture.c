#include "engine/capture.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/join.h"
#include "container/keeper.h"
#include "container/pages.h"
#include "container/proc_tree.h"
#include "container/room.h"
#include "criu/hidden.h"
#include "criu/pagemap.h"
#include "criu/session.h"
#include "engine/census.h"
#include "engine/copier.h"
#include "engine/earlier.h"
#include "engine/page_image.h"
#include "engine/precopy.h"
#include "engine/watch.h"
#include "store/page_writer.h"
#include "store/recent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SMALL_BUFFERS ((uint64_t)32 << 20) /* where storing keeps up with copying, or has to */
#define LITTLE_PAGES (SMALL_BUFFERS / 2 / MEMORY_PAGE) /* twice as many fit into them */
#define PIPE_BYTES ((uint64_t)1 << 20) /* that CRIU puts into one pipe: two descriptors */
#define SPARE_DESCRIPTORS 2048U        /* that CRIU needs for other things */

enum mode { MODE_HIDE, MODE_LAZY, MODE_IMAGES };

/* A page image that is to be written. */
struct planned {
    struct page_image image;
    char name[40];
};

struct kept {
    pid_t pid, keeper;
};

struct capture {
    enum mode mode;
    bool keep;        /* keepers are asked for */
    bool store_later; /* the tree waits for the copying alone */
    bool outside, plain;
    struct store_staging *into; /* borrowed */
    int staging;                /* its directory */
    struct store_hold *hold;
    struct earlier *earlier;    /* NULL: none */
    int file;                   /* a memory file: what was hidden, or CRIU's configuration */
    int socket[2];              /* lazy: CRIU's end, and ours */
    char text[64];              /* of the environment, or the path of the configuration */
    struct page_writer *writer; /* NULL: plain */
    bool hold_pages;
    uint64_t counter;        /* plain: bytes written; atomic */
    struct precopy *precopy; /* what was read ahead; NULL = nothing */
    struct census *census;   /* of the frozen tree; NULL before */

    /* What is to be copied, and from whom. */
    struct cr_pagemaps maps;
    struct copier copier;   /* packed */
    struct planned *images; /* plain */
    size_t n_images;
    struct kept *kept; /* all processes' that CRIU was kept from, or none's */
    size_t n_kept;
    bool copied;
};

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

static uint64_t buffer_size(const struct capture_options *o)
{
    uint64_t free_bytes = room_machine() / 4;
    uint64_t budget = o->budget_bytes ? o->budget_bytes : CAPTURE_BUDGET;
    budget = budget < free_bytes ? budget : free_bytes;
    uint64_t want =
        o->hold && !o->keep ? o->rss_bytes + o->rss_bytes / 16 + SMALL_BUFFERS : SMALL_BUFFERS;
    return want < budget ? want : budget;
}

bool capture_can_write_images(const char *criu)
{
    return cr_can_hide(criu) && pages_can_scan();
}

/* Ready to name, compress and keep pages. */
static enum rc open_writer(struct capture *c, const struct capture_options *o, struct err *err)
{
    struct page_writer_options w = {.backend = store_backend(o->store),
                                    .codec = o->codec,
                                    .domain = store_staging_domain(o->into),
                                    .alone = store_staging_is_alone(o->into),
                                    .threads = copier_threads(),
                                    .buffer_bytes = buffer_size(o),
                                    .expect_pages = o->rss_bytes / MEMORY_PAGE};
    char **prefer = NULL;
    enum rc rc = store_hold_packs(o->store, false, &c->hold, err);
    if (!rc)
        rc = store_recent_packs(o->store, o->name, &prefer, &w.n_prefer, err);
    w.prefer = prefer;
    if (!rc && !w.alone)
        c->earlier = earlier_open(o->store, o->name, o->parent, w.domain);
    w.past = earlier_pages(c->earlier);
    if (!rc)
        rc = page_writer_open(&w, &c->writer, err);
    store_free_ids(prefer);
    if (rc)
        return rc;
    c->hold_pages = o->hold && !o->keep;
    page_writer_hold(c->writer, c->hold_pages);
    return RC_OK;
}

enum rc capture_open(const struct capture_options *o, struct capture **out, struct err *err)
{
    CLEANUP(capture_freep) struct capture *c = mem_zalloc(sizeof(*c));
    *c = (struct capture){.mode = o->plain ? MODE_HIDE : choose_mode(o),
                          .keep = o->keep,
                          .store_later = o->hold,
                          .outside = o->outside,
                          .plain = o->plain,
                          .into = o->into,
                          .staging = store_staging_fd(o->into),
                          .file = -1,
                          .socket = {-1, -1}};
    c->file = memfd_create("chrek-capture", MFD_CLOEXEC);
    if (c->file < 0 ||
        (c->mode == MODE_LAZY && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, c->socket) < 0))
        return err_sys(err, "make descriptors for CRIU");
    enum rc rc = o->plain ? RC_OK : open_writer(c, o, err);
    if (!rc)
        *out = STEAL(c);
    return rc;
}

enum rc capture_launch(struct capture *c, size_t first, struct capture_launch *out, struct err *err)
{
    char config[32];
    struct capture_launch l = {.fds = {c->file, c->socket[0]}};
    if (c->mode == MODE_HIDE) {
        (void)snprintf(c->text, sizeof(c->text), CR_HIDDEN_VARIABLE "=%d%s", cr_session_fd(first),
                       c->keep ? CR_HIDDEN_KEEP : "");
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
    return c->writer ? page_writer_counter(c->writer) : &c->counter;
}

/* ---- copying ---- */

static enum rc decline_keepers(struct capture *c, struct err *err)
{
    enum rc rc = cr_keepers_decline(c->file, err);
    if (rc)
        return rc;
    c->keep = false;
    c->hold_pages = c->store_later;
    return RC_OK;
}

enum rc capture_ahead(struct capture *c, pid_t root, uint64_t deadline, struct err *err)
{
    if (c->mode != MODE_HIDE)
        return err_set(err, RC_UNSUPPORTED, "this CRIU cannot be kept from memory");
    page_writer_hold(c->writer, false);
    enum rc rc = precopy_run(root, c->writer, c->earlier, deadline, &c->precopy, err);
    /* To copy little takes less than to make keepers, who need a copy of all page tables. */
    if (!rc && c->keep && precopy_expected(c->precopy) <= LITTLE_PAGES)
        rc = decline_keepers(c, err);
    page_writer_hold(c->writer, c->hold_pages);
    return rc;
}

static pid_t outer_pid(const struct proc_facts *tasks, size_t n, uint32_t inner)
{
    for (size_t i = 0; i < n; i++)
        if ((uint32_t)tasks[i].inner == inner)
            return tasks[i].pid;
    return 0;
}

/* Consecutive pages of a process that are to be in a stream from page `at` on: those that were read
 * ahead are referred to, the rest is copied. */
static void plan_run(struct copier *c, struct page_writer *w, const struct known *known, pid_t pid,
                     const struct cr_run *r, struct page_input *in)
{
    for (uint64_t at = 0; at < r->pages;) {
        struct known_run part;
        uint64_t address = r->address + at * MEMORY_PAGE;
        if (known_find(known, address, r->pages - at, &part))
            page_writer_refer(w, in, r->at + at, part.pages, part.draft, part.at);
        else
            copier_add(c, pid, address, part.pages, in, r->at + at);
        at += part.pages;
    }
}

/* Where the memory of a process is read. */
static pid_t source_of(const struct capture *c, pid_t pid)
{
    for (size_t i = 0; i < c->n_kept; i++)
        if (c->kept[i].pid == pid)
            return c->kept[i].keeper;
    return pid;
}

/* The lazy pages of one page map. */
static enum rc plan_pack(struct capture *c, const struct cr_pagemap *map, pid_t pid,
                         struct err *err)
{
    static const struct known nothing = {0};
    struct page_input *in = NULL;
    const struct known *known = c->precopy ? precopy_confirmed(c->precopy, pid) : &nothing;
    enum rc rc = page_writer_input(c->writer, map->pages_id | MEMORY_LAZY, map->absent, &in, err);
    for (size_t i = 0; !rc && i < map->n_runs; i++) {
        const struct cr_run *r = &map->runs[i];
        if (r->flags & CR_RUN_PRESENT)
            continue;
        earlier_tell(c->earlier, map->name, r->address, r->pages, c->writer, in, r->at);
        plan_run(&c->copier, c->writer, known, source_of(c, pid), r, in);
    }
    return rc;
}

/* What CRIU has written of a process and what it was kept from, in one page image. */
static void plan_image(struct capture *c, const struct cr_pagemap *map, pid_t pid)
{
    c->images = mem_realloc(c->images, (c->n_images + 1) * sizeof(*c->images));
    struct planned *p = &c->images[c->n_images++];
    *p = (struct planned){.image = {0}};
    (void)snprintf(p->name, sizeof(p->name), "pages-%" PRIu32 ".img", map->pages_id);
    for (size_t i = 0; i < map->n_runs; i++) {
        const struct cr_run *r = &map->runs[i];
        bool present = r->flags & CR_RUN_PRESENT;
        page_image_add(&p->image, present ? 0 : source_of(c, pid),
                       present ? r->at * CR_PAGE : r->address, r->pages);
    }
}

static enum rc plan(struct capture *c, const struct cr_pagemap *map, pid_t pid, struct err *err)
{
    if (!c->plain)
        return plan_pack(c, map, pid, err);
    plan_image(c, map, pid);
    return RC_OK;
}

/* ---- what was hidden ---- */

struct runs {
    struct cr_run *list;
    size_t n;
};

static enum rc take_run(void *arg, const struct pages_run *run, struct err *err)
{
    struct runs *r = arg;
    struct cr_run *last = r->n ? &r->list[r->n - 1] : NULL;
    (void)err;
    if (last && last->address + last->pages * MEMORY_PAGE == run->address) {
        last->pages += run->pages;
        return RC_OK;
    }
    if (!r->list || (r->n & (r->n - 1)) == 0)
        r->list = mem_realloc(r->list, (r->n ? r->n * 2 : 1) * sizeof(*r->list));
    r->list[r->n++] = (struct cr_run){.address = run->address, .pages = run->pages};
    return RC_OK;
}

/* The pages that one process has in the ranges list[0..n). */
static enum rc find_pages(const struct capture *c, pid_t pid, const struct cr_hidden *list,
                          size_t n, struct runs *out, struct err *err)
{
    int fd = -1;
    enum rc rc = pages_open(pid, &fd, err);
    CLEANUP(fd_closep) int pagemap = fd;
    for (size_t i = 0; !rc && i < n; i++)
        rc = census_scan(c->census, pid, pagemap, list[i].start, list[i].end, take_run, out, err);
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

/* ---- keepers ---- */

static void drop_keepers(struct capture *c)
{
    for (size_t i = 0; i < c->n_kept; i++)
        keeper_end(c->kept[i].keeper);
    free(c->kept);
    c->kept = NULL;
    c->n_kept = 0;
}

/* The PID that we know a process by, 0: it is not there. */
static pid_t pid_of(const struct capture *c, const struct proc_facts *tasks, size_t n, uint32_t pid)
{
    const struct proc_facts *task = task_of(c, tasks, n, pid);
    return task ? task->pid : 0;
}

/* All, or none: what is left to be copied frozen is all of it.  They were not there yet when the
 * tasks were listed.
 * neighbour  some process of their PID namespace */
static void take_keepers(struct capture *c, pid_t neighbour)
{
    CLEANUP(mem_freep) struct cr_keeper *list = NULL;
    CLEANUP(mem_freep) struct proc_facts *tasks = NULL;
    size_t n = 0, n_tasks = 0;
    bool ours = c->outside || join_same(neighbour, getpid(), "pid"); /* CRIU's PIDs are */
    if (cr_keepers_read(c->file, &list, &n, NULL) || !n ||
        (!ours && proc_in_namespace(neighbour, &tasks, &n_tasks, NULL)))
        return;
    bool good = true;
    c->kept = mem_zalloc(n * sizeof(*c->kept));
    for (size_t i = 0; i < n; i++) {
        pid_t of = ours ? (pid_t)list[i].pid : pid_of(c, tasks, n_tasks, list[i].pid);
        pid_t keeper = ours ? (pid_t)list[i].keeper : pid_of(c, tasks, n_tasks, list[i].keeper);
        if (of && keeper && keeper_take(keeper, NULL) == RC_OK)
            c->kept[c->n_kept++] = (struct kept){of, keeper};
        else
            good = false;
    }
    if (!good)
        drop_keepers(c);
}

void capture_forget(struct capture *c, pid_t in_namespace)
{
    if (c->n_kept || c->mode != MODE_HIDE)
        return; /* those that were taken end with the capture */
    free(STEAL(c->kept));
    take_keepers(c, in_namespace);
    drop_keepers(c);
}

/* Whether a child has all of what was hidden in these ranges of a process. */
static bool is_kept(const struct cr_pagemap *map, const struct cr_hidden *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (uint64_t at = list[i].start; at < list[i].end;) {
            const struct cr_mapping *m = cr_mapping_of(map, at);
            if (!m || !m->forks)
                return false;
            at = m->end;
        }
    return true;
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
        rc = find_pages(c, task->pid, list + i, next - i, &runs, err);
        if (!rc)
            rc = cr_pagemap_add(map, runs.list, runs.n, err);
        free(runs.list);
        if (c->keep && !is_kept(map, list + i, next - i))
            drop_keepers(c);
    }
    return rc;
}

static enum rc plan_all(struct capture *c, pid_t in_namespace, struct err *err)
{
    const struct proc_facts *tasks = NULL;
    struct cr_pagemaps *maps = &c->maps;
    size_t n_tasks = 0;
    enum rc rc = cr_pagemaps_load(c->staging, maps, err);
    capture_frozen(c, in_namespace);
    if (!rc)
        rc = census_tasks(c->census, &tasks, &n_tasks, err);
    if (!rc && c->mode == MODE_HIDE) {
        take_keepers(c, in_namespace);
        rc = add_hidden(c, tasks, n_tasks, err);
    }
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

static enum rc write_images(struct capture *c, struct err *err)
{
    enum rc rc = RC_OK;
    for (size_t i = 0; !rc && i < c->n_images; i++) {
        struct planned *p = &c->images[i];
        struct digest digest;
        p->image.cancel = c->copier.cancel;
        rc = page_image_write(&p->image, c->staging, p->name, &c->counter, &digest, err);
        if (!rc)
            store_staging_digest(c->into, p->name, p->image.pages * CR_PAGE, &digest);
    }
    return rc;
}

static enum rc copy_all(struct capture *c, struct err *err)
{
    enum rc rc = c->plain ? write_images(c, err) : copier_run(&c->copier, c->writer, false, err);
    c->copied = !rc;
    drop_keepers(c);
    return rc ? err_ctx(err, rc, "copy memory") : RC_OK;
}

void capture_frozen(struct capture *c, pid_t in_namespace)
{
    if (!c->census)
        c->census = census_begin(in_namespace, c->precopy);
}

enum rc capture_copy(struct capture *c, pid_t in_namespace, const struct cancel *cancel,
                     struct err *err)
{
    if (c->plain)
        store_staging_settled(c->into);
    enum rc rc = plan_all(c, in_namespace, err);
    if (rc)
        return err_ctx(err, rc, "list memory");
    if (c->n_kept)
        return RC_OK;
    c->copier.cancel = cancel; /* while the tree waits */
    rc = copy_all(c, err);
    c->copier.cancel = NULL;
    return rc;
}

void capture_thawed(struct capture *c)
{
    census_endp(&c->census);
    precopy_freep(&c->precopy);
}

/* ---- storing ---- */

/* What the pages of an image were. */
static void tell_image(const struct capture *c, uint32_t id, struct page_input *in)
{
    for (size_t i = 0; i < c->maps.n; i++) {
        const struct cr_pagemap *m = &c->maps.list[i];
        for (size_t k = 0; m->pages_id == id && k < m->n_runs; k++)
            if (m->runs[k].flags & CR_RUN_PRESENT)
                earlier_tell(c->earlier, m->name, m->runs[k].address, m->runs[k].pages, c->writer,
                             in, m->runs[k].at);
    }
}

static enum rc pack_image(struct capture *c, const char *name, struct err *err)
{
    uint32_t id = 0;
    struct page_input *in = NULL;
    if (sscanf(name, "pages-%" SCNu32 ".img", &id) != 1 || id >= MEMORY_LAZY)
        return RC_OK;
    CLEANUP(fd_closep) int fd = sys_openat(c->staging, name, O_RDONLY | O_NOFOLLOW, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", name);
    enum rc rc = page_writer_file(c->writer, id, fd, &in, err);
    if (!rc) {
        tell_image(c, id, in);
        rc = page_writer_read(c->writer, in, fd, err);
    }
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

/* What CRIU says of pages that are in the image: whether they may also be loaded later. */
static uint32_t present_flags(const struct cr_pagemap *map, const struct cr_run *r)
{
    uint64_t end = r->address + r->pages * CR_PAGE;
    for (uint64_t at = r->address; at < end;) {
        const struct cr_mapping *m = cr_mapping_of(map, at);
        if (!m || m->flags & (MAP_LOCKED | MAP_HUGETLB))
            return CR_RUN_PRESENT;
        at = m->end;
    }
    return CR_RUN_PRESENT | CR_RUN_LAZY;
}

/* CRIU's page maps do not have what was hidden from it. */
static enum rc save_pagemaps(const struct capture *c, struct err *err)
{
    for (size_t i = 0; c->mode == MODE_HIDE && i < c->maps.n; i++) {
        const struct cr_pagemap *m = &c->maps.list[i];
        for (size_t k = 0; c->plain && m->absent && k < m->n_runs; k++)
            if (!(m->runs[k].flags & CR_RUN_PRESENT))
                m->runs[k].flags = present_flags(m, &m->runs[k]);
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
    if (!c->plain)
        page_writer_hold(c->writer, false);
    enum rc rc = c->copied ? RC_OK : copy_all(c, err);
    if (!rc)
        rc = save_pagemaps(c, err);
    if (rc || c->plain) {
        meta->pages_bytes = watch_pages_bytes(c->staging);
        return rc;
    }
    rc = pack_images(c, err);
    if (!rc)
        rc = page_writer_finish(c->writer, &m, &t, err);
    earlier_freep(&c->earlier); /* it may be what the new checkpoint replaces */
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
    drop_keepers(c);
    census_endp(&c->census);
    precopy_freep(&c->precopy);
    page_writer_freep(&c->writer);
    earlier_freep(&c->earlier);
    copier_done(&c->copier);
    for (size_t i = 0; i < c->n_images; i++)
        page_image_done(&c->images[i].image);
    free(c->images);
    fd_closep(&c->socket[0]);
    fd_closep(&c->socket[1]);
    fd_closep(&c->file);
    cr_pagemaps_done(&c->maps);
    store_hold_freep(&c->hold);
    free(c);
}
