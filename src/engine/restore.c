/* The sequence of a restore.
 *
 *   gate      can a tree from there run here
 *   verify    the small files against the manifest, before anything reads them
 *   files     what the caller has to prepare, such as the root file system; /dev/shm
 *   identity  the application directory
 *   memory    verified images for CRIU, and what is left to us: of a packed checkpoint, and of a
 *             plain one with much memory that we can write faster than CRIU
 *   launch    are file locks and ports free, have logs grown; CRIU, in the box; and a pager, if the
 *             program is not to wait for its memory
 *   criu      CRIU restores; at pre-resume, with every task stopped, the memory that is left to us
 *             is brought in, verified on the way, or the pager holds what will bring it in; page
 *             images that CRIU reads itself are verified by a thread meanwhile, and its verdict is
 *             awaited: damaged memory never runs
 *   adopt     the box's init takes the tree over
 *   gpu-restore, gpu-unlock    GPU memory back to the GPU, see engine/gpus.h why only now
 *   notify    the application is told, if it asked
 */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/box.h"
#include "container/join.h"
#include "container/place.h"
#include "container/task.h"
#include "criu/explain.h"
#include "criu/gate.h"
#include "criu/session.h"
#include "engine/appdir.h"
#include "engine/audit.h"
#include "engine/children.h"
#include "engine/engine.h"
#include "engine/feed.h"
#include "engine/fill.h"
#include "engine/gpus.h"
#include "engine/host.h"
#include "engine/inherit.h"
#include "engine/locks.h"
#include "engine/logs.h"
#include "engine/notify.h"
#include "engine/plain.h"
#include "engine/plain_fill.h"
#include "engine/ports.h"
#include "engine/view.h"
#include "engine/watch.h"
#include "rootfs/tmpfs.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_NAME "restore.log"
#define END_PATIENCE_NS (60 * CLOCK_S) /* for killed processes: a GPU's driver takes its time */
#define INTERRUPT_S 5                  /* after a signal, for what does not look whether one came */

/* The page images that CRIU reads, verified while it works. */
struct verification {
    const struct store_entry *entry;
    pthread_t thread;
    bool running;
    enum rc rc;
    struct err err;
};

struct restore {
    const struct engine *engine;
    const struct engine_restore_request *req;
    const struct metadata *meta;
    struct gpus gpus;
    struct join join;
    struct children children; /* without a box: what is ours to end is what came after these */
    struct inherit inherit;
    struct ports ports; /* held until the tree listens */
    struct cr_session *session;
    struct cr_gate gate; /* with a place: the tree does not run before it was audited */
    struct verification verification;
    const struct page_reader *pages; /* NULL: plain format */
    struct workingset set;           /* the record of earlier restores, if there is one */
    struct view view;
    struct fill *fill;  /* mode full: writes the memory */
    struct plain plain; /* of a plain checkpoint; without a directory CRIU does all of it */
    uint64_t filled;    /* atomic */
    enum engine_mode mode;
    struct pager *pager; /* NULL: mode full */
    uint64_t deadline;
    int work; /* a directory without a name for CRIU's log: the checkpoint may be read-only */
    char work_path[64];
    pid_t pid;   /* of the root, as CRIU sees it */
    pid_t outer; /* the same as we see it, once it is known; with a place */
    int images;  /* with a place: what CRIU gets to see of them; -1: all there is */
    int master;
};

static enum rc gate(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct restore *r = ctx;
    enum rc rc = host_accepts(r->meta, err);
    if (!rc && r->meta->container && r->req->box)
        rc = err_set(err, RC_UNSUPPORTED,
                     "it is a container with namespaces and mounts of its own; restore it in a "
                     "container, by restore-entrypoint");
    if (!rc && !r->meta->container && r->req->place)
        rc = err_set(err, RC_UNSUPPORTED, "it was not made of a container");
    return rc ? rc : gpus_accept(r->meta, &r->gpus, err);
}

/* Digests do not help against somebody who may write both the bytes and the manifest. */
static void warn_of_strangers(const struct restore *r)
{
    struct stat st;
    if (!r->engine->warn || fstat(store_entry_fd(r->req->entry), &st) < 0)
        return;
    CLEANUP(mem_freep) char *text = NULL;
    if (st.st_uid != 0 && st.st_uid != geteuid())
        text = mem_asprintf("%s belongs to user %u, who decides what this program becomes",
                            store_entry_path(r->req->entry), st.st_uid);
    else if (st.st_mode & 0022)
        text = mem_asprintf("%s can be written by others, who decide what this program becomes",
                            store_entry_path(r->req->entry));
    if (text)
        r->engine->warn(r->engine->arg, text);
}

static enum rc verify(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct restore *r = ctx;
    enum rc rc = store_entry_unlocked(r->req->entry, err);
    if (!rc)
        rc = store_entry_fetch(r->req->entry, err);
    if (rc)
        return rc;
    warn_of_strangers(r);
    if (!store_entry_manifest(r->req->entry)) {
        if (r->engine->warn)
            r->engine->warn(r->engine->arg,
                            "this checkpoint was not made by chrek and has no digests: its bytes "
                            "cannot be verified");
        return RC_OK;
    }
    return store_verify(r->req->entry, STORE_SMALL, 1, NULL, err);
}

/* A directory of the box, or without one our own. */
static enum rc open_dir(const struct restore *r, const char *path, int *out_fd, struct err *err)
{
    if (r->req->box)
        return box_open_dir(r->req->box, path, out_fd, err);
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (fd < 0)
        return err_sys(err, "open '%s'", path);
    *out_fd = fd;
    return RC_OK;
}

static enum rc files(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    const struct restore *r = ctx;
    enum rc rc = r->req->prepare ? r->req->prepare(r->req->prepare_arg, err) : RC_OK;
    if (rc || !r->meta->has_shm || r->req->place)
        return rc;
    int fd = -1, from = -1;
    rc = open_dir(r, "/dev/shm", &fd, err);
    CLEANUP(fd_closep) int shm = fd;
    if (!rc)
        rc = store_entry_reveal(r->req->entry, HOST_SHM_ARCHIVE, &from, err);
    return rc ? rc : tmpfs_load(from, HOST_SHM_ARCHIVE, shm, err);
}

static enum rc identity(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    const struct restore *r = ctx;
    char now[CLOCK_RFC3339_LEN];
    clock_rfc3339(now);
    int fd = -1;
    if (!r->req->box && !r->req->app_dir)
        return RC_OK;
    enum rc rc = open_dir(r, r->req->box ? BOX_APP_DIR : r->req->app_dir, &fd, err);
    CLEANUP(fd_closep) int dir = fd;
    if (rc)
        return rc;
    struct appdir_identity id = {.generation = r->meta->generation + 1,
                                 .checkpoint_id = store_entry_id(r->req->entry),
                                 .restored_at = now,
                                 .hostname = r->req->hostname,
                                 .env = r->req->env};
    return appdir_write(dir, &id, err);
}

/* ---- memory ---- */

static enum rc memory(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct restore *r = ctx;
    enum rc rc = store_entry_pages(r->req->entry, &r->pages, err);
    if (rc)
        return rc;
    r->mode = feed_mode(r->engine, r->req, r->pages, &r->set);
    if (r->pages && r->mode != ENGINE_FULL) /* else it is found before the program runs */
        rc = page_reader_check(r->pages, err);
    if (rc)
        return rc;
    if (r->pages)
        return view_make(r->req->entry, r->pages, r->mode != ENGINE_FULL, &r->view, err);
    /* What is in the way, or not worth it, is no failure: CRIU can always do it. */
    if (r->mode != ENGINE_CRIU && plain_make(r->req->entry, &r->plain, NULL) != RC_OK)
        r->mode = ENGINE_CRIU;
    return RC_OK;
}

/* A directory of copies for CRIU, -1 when it works on the checkpoint's own. */
static int copies(const struct restore *r)
{
    return r->pages ? r->view.dir : r->plain.dir;
}

/* ---- launch ---- */

/* CRIU's work directory: not the checkpoint, which is never changed and may be read-only. */
static enum rc make_work_dir(struct restore *r, struct err *err)
{
    if (r->req->work_dir) {
        enum rc rc = fs_mkdirs(r->req->work_dir, 0755, err);
        if (rc)
            return err_ctx(err, rc, "work directory");
        r->work = sys_openat(AT_FDCWD, r->req->work_dir, O_RDONLY | O_DIRECTORY, 0);
        return r->work < 0 ? err_sys(err, "open '%s'", r->req->work_dir) : RC_OK;
    }
    if (fs_private_dir(&r->work, NULL) == RC_OK)
        return RC_OK;
    (void)snprintf(r->work_path, sizeof(r->work_path), "/tmp/chrek-restore-XXXXXX");
    if (!mkdtemp(r->work_path)) {
        r->work_path[0] = '\0';
        return err_sys(err, "make a work directory in /tmp");
    }
    r->work = sys_openat(AT_FDCWD, r->work_path, O_RDONLY | O_DIRECTORY, 0);
    return r->work < 0 ? err_sys(err, "open '%s'", r->work_path) : RC_OK;
}

enum { PASS_IMAGES, PASS_WORK, PASS_INHERIT };

/* A process of the network namespace that the tree is to live in. */
static enum rc open_neighbour(const struct restore *r, int *out, struct err *err)
{
    CLEANUP(fd_closep) int proc = -1;
    enum rc rc = task_open_proc("/proc", &proc, err);
    pid_t pid = r->req->box ? box_init_pid(r->req->box) : getpid();
    if (r->req->place)
        pid = r->req->place->pid;
    return rc ? rc : task_open(proc, pid, out, err);
}

static enum rc claim_ports(struct restore *r, int images, uint64_t deadline, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    if (r->meta->private_net && r->req->box)
        return RC_OK; /* nobody else is there */
    enum rc rc = open_neighbour(r, &task, err);
    return rc ? rc : ports_claim(images, task, deadline, &r->ports, err);
}

/* What others have meanwhile: locks, ports, and files that have grown.  Files of somebody else's
 * container are not opened by us: what they are is up to that one. */
static enum rc look_at_others(struct restore *r, int images, uint64_t deadline, struct err *err)
{
    int fd = -1;
    if (r->req->place)
        return claim_ports(r, images, deadline, err);
    enum rc rc = open_dir(r, "/.", &fd, err);
    CLEANUP(fd_closep) int root = fd;
    if (!rc)
        rc = locks_check(images, root, err);
    if (!rc && copies(r) >= 0)
        rc = logs_follow(r->engine, images, root, err);
    return rc ? rc : claim_ports(r, images, deadline, err);
}

/* For a CRIU in somebody else's container: a directory without a way out of it, so that no link in
 * the container leads through CRIU's descriptor to other checkpoints. */
static enum rc shut_in(struct restore *r, int *images, struct err *err)
{
    struct mount_attr alone = {.attr_set = MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
    CLEANUP(fd_closep)
    int copy = open_tree(*images, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (copy < 0 || mount_setattr(copy, "", AT_EMPTY_PATH, &alone, sizeof(alone)) < 0)
        return err_sys(err, "shut in the images");
    *images = r->images = sys_openat(copy, ".", O_RDONLY | O_DIRECTORY, 0);
    return r->images < 0 ? err_sys(err, "open the images") : RC_OK;
}

static enum rc find_inherited(struct restore *r, int images, struct err *err)
{
    CLEANUP(fd_closep) int task = -1;
    enum rc rc = open_neighbour(r, &task, err);
    return rc ? rc : inherit_find(r->meta, images, r->req->streams, task, &r->inherit, err);
}

static enum rc make_gate(struct restore *r, size_t passed, struct err *err)
{
    if (cr_can_wait(r->engine->criu))
        return cr_gate_make(passed, &r->gate, err);
    return err_set(err, RC_UNSUPPORTED,
                   "CRIU '%.200s' lets a tree run before it was looked at: use the one that is "
                   "installed with chrek",
                   r->engine->criu);
}

static enum rc launch(void *ctx, uint64_t deadline, struct err *err)
{
    struct restore *r = ctx;
    enum rc rc = make_work_dir(r, err);
    if (!rc && r->pages && r->mode != ENGINE_FULL) /* before there are threads: it forks */
        rc = feed_start(r->req, r->mode, r->pages, &r->view, r->work, &r->set, &r->pager, err);
    if (!rc && r->req->box)
        rc = join_open(box_init_pid(r->req->box), &r->join, err);
    int images = copies(r);
    if (!rc && images < 0)
        rc = store_entry_reveal(r->req->entry, "*.img", &images, err);
    if (!rc && r->req->place && copies(r) < 0)
        rc = shut_in(r, &images, err);
    if (!rc)
        rc = look_at_others(r, images, deadline, err);
    if (!rc)
        rc = find_inherited(r, images, err);
    if (!rc && !r->req->box)
        rc = children_note(&r->children, r->req->place ? r->req->place->pid : getpid(), err);
    if (rc)
        return rc;
    int pass[PASS_INHERIT + INHERIT_MAX + 1] = {images, r->work};
    size_t n = PASS_INHERIT;
    for (size_t i = 0; i < r->inherit.n; i++)
        pass[n++] = r->inherit.fd[i];
    if (r->req->place)
        rc = make_gate(r, n, err);
    if (rc)
        return rc;
    if (r->req->place)
        pass[n++] = r->gate.from;
    struct cr_launch l = {.criu = r->engine->criu,
                          .enter = join_enter,
                          .enter_arg = &r->join,
                          .pass_fds = pass,
                          .n_pass = n,
                          .deadline = deadline,
                          .cancel = r->engine->cancel};
    if (r->req->place) {
        l.enter = place_enter;
        l.enter_arg = (void *)(uintptr_t)r->req->place;
        l.inside = r->req->place->program;
        l.env = r->gate.env;
        l.watched = true;
        l.until = deadline;
    }
    rc = cr_session_open(&l, &r->session, err);
    cr_gate_handed(&r->gate);
    if (!rc && r->pages && r->mode == ENGINE_FULL) /* after the last fork: it has threads */
        rc = fill_begin(&r->view, r->pages, &r->filled, &r->fill, err);
    return rc;
}

/* ---- criu ---- */

static void *verify_thread(void *arg)
{
    struct verification *v = arg;
    v->rc = store_verify(v->entry, STORE_BIG, 1, NULL, &v->err);
    return NULL;
}

static void start_verification(struct restore *r)
{
    struct verification *v = &r->verification;
    v->entry = r->req->entry;
    if (copies(r) >= 0 || !store_entry_manifest(v->entry))
        return;
    v->running = pthread_create(&v->thread, NULL, verify_thread, v) == 0;
    if (!v->running)
        (void)verify_thread(v); /* no thread to be had: then before CRIU */
}

static enum rc finish_verification(struct restore *r, struct err *err)
{
    struct verification *v = &r->verification;
    if (v->running)
        (void)pthread_join(v->thread, NULL);
    v->running = false;
    if (v->rc && err)
        *err = v->err;
    return v->rc;
}

/* CRIU resumes the tasks whatever its pre-resume hook says, and so would the kernel if CRIU were
 * killed; so a tree that must not run is killed itself, while every task of it is still stopped.
 * Behind a gate it ends whatever becomes of CRIU and of us. */
static void kill_tree(struct restore *r)
{
    cr_gate_shut(&r->gate);
    if (r->req->place && r->session) /* they are CRIU's children, until it ends */
        children_kill_of(cr_session_pid(r->session));
    if (r->req->box)
        box_kill(r->req->box);
    else if (r->children.parent)
        children_kill(&r->children, r->session ? cr_session_pid(r->session) : 0);
}

/* Whoever starts the program afresh after us must find its ports, locks and memory free.  A box is
 * its owner's to end. */
static void end_tree(struct restore *r)
{
    struct err left = ERR_INIT;
    if (!r->children.parent)
        return;
    kill_tree(r);
    cr_session_freep(&r->session); /* before CRIU makes another process */
    enum rc rc = children_end(&r->children, clock_now() + END_PATIENCE_NS, &left);
    if (rc && r->engine->warn)
        r->engine->warn(r->engine->arg, left.msg);
}

/* Some process of the PID namespace that the tree is in: without a box CRIU may have made it. */
static pid_t neighbour_of(const struct restore *r)
{
    if (r->req->place)
        return r->outer;
    return r->req->box ? box_init_pid(r->req->box) : r->pid;
}

/* With every task stopped. */
static enum rc bring_in(struct restore *r, struct err *err)
{
    if (r->pager)
        return pager_await(r->pager, r->deadline, err);
    if (r->fill)
        return fill_finish(r->fill, neighbour_of(r), err);
    return copies(r) >= 0 ? plain_fill(&r->plain, neighbour_of(r), &r->filled, err) : RC_OK;
}

/* The root as we see it: the child of CRIU that has this number where CRIU is. */
static enum rc find_root(struct restore *r, struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    CLEANUP(fd_closep) int proc = -1;
    size_t n = 0;
    enum rc rc = task_open_proc("/proc", &proc, err);
    if (!rc)
        rc = proc_children(cr_session_pid(r->session), &list, &n, err);
    for (size_t i = 0; !rc && i < n && !r->outer; i++) {
        struct task_status s;
        CLEANUP(fd_closep) int task = -1;
        if (task_open(proc, list[i].pid, &task, NULL) == RC_OK &&
            task_status_read(task, &s, NULL) == RC_OK && s.n_ns_pid > 2 &&
            s.ns_pid[s.n_ns_pid - 2] == r->pid)
            r->outer = list[i].pid;
    }
    return rc || r->outer ? rc : err_set(err, RC_IO, "the root of the tree is not to be found");
}

/* May it run where it is, and is it still wanted there? */
static enum rc ask_place(const struct restore *r, struct err *err)
{
    if (!r->req->place)
        return RC_OK;
    enum rc rc = audit_tree(r->req->place, r->outer, err);
    return rc || !r->req->ready ? rc : r->req->ready(r->req->prepare_arg, r->pid, err);
}

static enum rc on_event(void *arg, enum cr_event event, pid_t pid, int fd, struct err *err)
{
    struct restore *r = arg;
    CLEANUP(fd_closep) int master = fd;
    if (event == CR_POST_RESTORE)
        r->pid = pid;
    if (event == CR_ORPHAN_PTS_MASTER && master >= 0 && r->master < 0)
        r->master = fd_steal(&master);
    if (event != CR_PRE_RESUME)
        return RC_OK;
    enum rc rc = r->req->place ? find_root(r, err) : RC_OK;
    if (!rc)
        rc = bring_in(r, err);
    if (!rc)
        rc = finish_verification(r, err);
    if (!rc && copies(r) < 0) /* CRIU takes an image that is not there for an empty one */
        rc = store_entry_recheck(r->req->entry, err);
    if (!rc)
        rc = ask_place(r, err);
    if (!rc)
        rc = cr_gate_open(&r->gate, err);
    if (rc)
        kill_tree(r);
    return rc;
}

/* For whoever looks into it later; a log that there is not is no failure. */
static void copy_log(const struct restore *r)
{
    if (!r->req->criu_log_dir || r->work < 0 || fs_mkdirs(r->req->criu_log_dir, 0755, NULL))
        return;
    CLEANUP(mem_freep)
    char *path = mem_asprintf("%s/restore-%lld.log", r->req->criu_log_dir, (long long)time(NULL));
    (void)!fs_copy_file(r->work, LOG_NAME, AT_FDCWD, path, 0644, NULL);
}

static const char *root_of(const struct restore *r)
{
    if (r->req->place)
        return PLACE_ROOT;
    return r->req->box ? NULL : "/";
}

static enum rc run_criu(void *ctx, uint64_t deadline, struct err *err)
{
    struct restore *r = ctx;
    struct cr_inherit inherit[INHERIT_MAX];
    for (size_t i = 0; i < r->inherit.n; i++)
        inherit[i] = (struct cr_inherit){r->inherit.key[i], cr_session_fd(PASS_INHERIT + i)};
    struct cr_opts opts = {.images_fd = cr_session_fd(PASS_IMAGES),
                           .work_fd = cr_session_fd(PASS_WORK),
                           .log_file = LOG_NAME,
                           .log_level = r->req->log_level,
                           .config_file = r->req->config_file,
                           .external = r->req->external,
                           .tcp_skip_in_flight = r->req->skip_in_flight,
                           .rst_sibling = !r->req->box && !r->req->place,
                           .mntns_compat_mode = !r->req->box,
                           .root = root_of(r),
                           .ext_masters = r->req->place != NULL,
                           .shell_job = r->meta->shell_job,
                           .tcp_established = r->req->tcp_established && r->meta->tcp_established,
                           .file_locks = true,
                           .link_remap = true,
                           .ext_unix_sk = true,
                           .evasive_devices = true,
                           .force_irmap = true,
                           .orphan_pts_master = true,
                           .lazy_pages = r->pager != NULL,
                           .inherit = inherit,
                           .n_inherit = r->inherit.n};
    opts.tcp_close = !opts.tcp_established;
    struct cr_hooks hooks = {.event = on_event, .arg = r};
    struct watch *w = copies(r) >= 0 && !r->pager
                          ? watch_counter(r->engine, "Restoring memory", &r->filled,
                                          r->view.gap_bytes + r->plain.gap_bytes)
                          : watch_start(r->engine, "Restoring", r->work, 0);
    r->deadline = deadline;
    start_verification(r);
    enum rc rc = cr_restore(r->session, &opts, &hooks, deadline, &r->pid, err);
    watch_stop(w);
    if (rc == RC_CANCELLED || (rc && !r->req->box))
        kill_tree(r); /* what CRIU has left half made must not go on when CRIU ends */
    struct err damage = ERR_INIT;
    enum rc bad = finish_verification(r, &damage);
    if (!rc)
        return RC_OK;
    if (bad == RC_CORRUPT) { /* CRIU may have stumbled over it first */
        *err = damage;
        return bad;
    }
    /* When a pager ends, CRIU may stumble before the guardian has said why. */
    if (r->pager && pager_end(&r->pager, &damage) == PAGER_FAILED) {
        *err = damage;
        return damage.rc;
    }
    return cr_explain_file(r->work, LOG_NAME, rc, err);
}

static enum rc adopt(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct restore *r = ctx;
    cr_session_freep(&r->session); /* its end hands the tree over to the box's init */
    if (!r->req->box)
        return RC_OK;
    return box_adopt(r->req->box, r->pid, err);
}

/* ---- the GPU ---- */

static bool has_gpu(const void *ctx)
{
    return ((const struct restore *)ctx)->meta->gpu != NULL;
}

static enum rc restore_gpu(void *ctx, uint64_t deadline, struct err *err)
{
    struct restore *r = ctx;
    pid_t neighbour = neighbour_of(r);
    if (r->engine->progress)
        r->engine->progress(r->engine->arg, "Restoring GPU memory", 0, 0);
    enum rc rc = gpus_restore(&r->gpus, r->meta, neighbour, deadline, err);
    if (rc)
        kill_tree(r); /* what runs without its GPU waits for ever */
    return rc;
}

static enum rc unlock_gpu(void *ctx, uint64_t deadline, struct err *err)
{
    struct restore *r = ctx;
    enum rc rc = gpus_unlock(&r->gpus, deadline, err);
    if (rc)
        kill_tree(r);
    return rc;
}

static enum rc tell(void *ctx, uint64_t deadline, struct err *err)
{
    const struct restore *r = ctx;
    const char *how = r->req->notify ? r->req->notify : r->meta->notify;
    if (!how)
        return RC_OK;
    struct err bad = ERR_INIT;
    if (r->req->place && strncmp(how, "signal:", 7) != 0)
        return RC_OK; /* a command would be one of ours, with our rights */
    enum rc rc = r->req->box ? notify_application(how, r->req->box, deadline, &bad)
                             : notify_process(how, r->outer ? r->outer : r->pid, deadline, &bad);
    if (rc && r->engine->warn) /* it runs; that nobody told it is no reason to end it */
        r->engine->warn(r->engine->arg, bad.msg);
    (void)err;
    return RC_OK;
}

static const struct step steps[] = {
    {"gate", "restore it on this machine", gate, NULL, 0},
    {"verify", "verify the checkpoint", verify, NULL, 0},
    {"files", "restore files", files, NULL, 0},
    {"identity", "prepare the application directory", identity, NULL, 0},
    {"memory", "prepare the memory", memory, NULL, 0},
    {"launch", "begin the restore", launch, NULL, 60 * CLOCK_S},
    {"criu", "restore the processes", run_criu, NULL, 0},
    {"adopt", "take over the processes", adopt, NULL, 0},
    {"gpu-restore", "restore the GPU memory", restore_gpu, NULL, 0, has_gpu},
    {"gpu-unlock", "let the GPU go on", unlock_gpu, NULL, 0, has_gpu},
    {"notify", "notify the application", tell, NULL, 30 * CLOCK_S},
};

static void clean_up(struct restore *r)
{
    cr_gate_shut(&r->gate);
    cr_session_freep(&r->session);
    children_done(&r->children);
    inherit_done(&r->inherit);
    (void)finish_verification(r, NULL);
    fill_freep(&r->fill);
    pager_freep(&r->pager);
    gpus_done(&r->gpus);
    join_done(&r->join);
    ports_done(&r->ports);
    workingset_done(&r->set);
    view_done(&r->view);
    plain_done(&r->plain);
    fd_closep(&r->work);
    fd_closep(&r->images);
    if (r->work_path[0])
        (void)!fs_remove_tree(AT_FDCWD, r->work_path, NULL);
}

enum rc engine_restore(const struct engine *e, const struct engine_restore_request *req,
                       struct engine_outcome *out, struct err *err)
{
    struct restore r = {.engine = e,
                        .req = req,
                        .meta = store_entry_metadata(req->entry),
                        .join = JOIN_NOTHING,
                        .children = CHILDREN_INIT,
                        .inherit = INHERIT_INIT,
                        .ports = PORTS_INIT,
                        .set = WORKINGSET_INIT,
                        .gate = CR_GATE_NOTHING,
                        .view = VIEW_INIT,
                        .plain = PLAIN_INIT,
                        .work = -1,
                        .images = -1,
                        .master = -1};
    struct engine_outcome o = {.master = -1};
    uint64_t limit = req->timeout_ns ? req->timeout_ns : ENGINE_TIMEOUT_NS;
    uint64_t deadline = limit == ENGINE_NO_TIMEOUT ? 0 : clock_now() + limit;
    if (e->cancel && e->by_signal)
        cancel_arm(e->cancel, INTERRUPT_S);
    store_entry_cancel(req->entry, e->cancel);
    enum rc rc = steps_run(steps, ARRAY_LEN(steps), &r, deadline, NULL, &o.timings, err);
    o.mode = r.mode;
    /* The program runs.  A signal from here on is for it, and waits, blocked, for who passes it on.
     */
    if (!rc && e->cancel && e->by_signal)
        cancel_disarm(e->cancel);
    if (!rc && cancel_asked(e->cancel)) {
        rc = cancel_error(e->cancel, err);
        kill_tree(&r);
    }
    if (rc) {
        end_tree(&r);
        copy_log(&r);
    }
    o.pager = rc ? NULL : STEAL(r.pager);
    clean_up(&r);
    store_entry_cancel(req->entry, NULL);
    if (e->cancel && e->by_signal)
        cancel_disarm(e->cancel);
    if (rc) {
        fd_closep(&r.master);
        return rc;
    }
    o.pid = r.pid;
    o.master = r.master;
    o.pages_bytes = r.meta->pages_bytes;
    o.total_bytes = r.meta->total_bytes;
    *out = o;
    return RC_OK;
}
