/* The sequence of a checkpoint.
 *
 *   look      the tree, which nobody else may be saving; its standard streams
 *   examine   what the doctor knows to be impossible
 *   stage     a staging directory in the store
 *   launch    CRIU, in the namespaces of the tree
 *   ahead     incremental: read memory while the tree runs
 *   gpu-lock, gpu-save    where a GPU is used: bring it to rest, its memory into the processes
 *   dump      freeze, write images; in CRIU's post-dump notification, with the tree still frozen:
 *             /dev/shm, and in stop mode the publishing too, so that a tree is ended only when its
 *             checkpoint is safe (with `early` only the copying, so that it is ended sooner)
 *   gpu-resume            leave-running: and back
 *   publish   digests, manifest, marker, rename (leave-running: while the tree runs again)
 */
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/join.h"
#include "container/proc_tree.h"
#include "container/room.h"
#include "container/tcp_repair.h"
#include "criu/explain.h"
#include "criu/hidden.h"
#include "criu/mend.h"
#include "criu/netlock.h"
#include "criu/session.h"
#include "engine/capture.h"
#include "engine/container.h"
#include "engine/engine.h"
#include "engine/gpus.h"
#include "engine/host.h"
#include "engine/precopy.h"
#include "engine/preflight.h"
#include "engine/registry.h"
#include "engine/root_changes.h"
#include "engine/saving.h"
#include "engine/survivors.h"
#include "engine/watch.h"
#include "rootfs/tmpfs.h"
#include "store/dump_log.h"
#include "store/gc.h"
#include "store/quota.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HANG_S 5               /* for who is interrupted and cannot end, with the program let go */
#define MEND_NS (10 * CLOCK_S) /* for what a dead CRIU has left in the processes */

struct checkpoint {
    const struct engine *engine;
    const struct engine_checkpoint_request *req;
    struct engine_outcome *out;

    struct proc_facts *tree;
    size_t n_tree;
    struct saving *saving; /* our claim on it */
    uint64_t rss_bytes;
    struct metadata meta;
    struct join join;
    struct store_staging *staging;
    struct capture *capture; /* NULL: plain format, and CRIU writes all of it */
    struct cr_session *session;
    struct survivors *survivors;
    struct capture_launch capture_launch;
    char **external; /* of a container */
    struct gpus gpus;
    enum rc gpu_rc; /* of bringing the GPU state back after the dump */
    struct err gpu_err;
    uint64_t deadline; /* of all of it */
    uint64_t frozen_at;
    const struct steps_timings *timings; /* of the steps so far */
    bool early;                          /* the tree is ended before its checkpoint is stored */
    bool refused;                        /* we have told CRIU to give up, and know why */
    bool copied;                         /* all that is needed of it is with us: it may be ended */
    bool ended;                          /* and has been */
    bool published;
};

static bool is_box(const struct checkpoint *c)
{
    return !c->req->container && !join_same(c->req->pid, getpid(), "pid");
}

/* ---- look ---- */

static enum rc look_at_stream(struct checkpoint *c, int i, struct err *err)
{
    char name[16];
    CLEANUP(mem_freep) char *link = NULL;
    (void)snprintf(name, sizeof(name), "fd/%d", i);
    enum rc rc = proc_link(c->req->pid, name, &link, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* a closed stream */
    if (rc)
        return rc;
    if (strncmp(link, "pipe:[", 6) == 0) {
        c->meta.streams[i] = METADATA_STREAM_PIPE;
        c->meta.stream_key[i] = STEAL(link);
    } else if (strncmp(link, "/dev/pts/", 9) == 0) {
        c->meta.streams[i] = METADATA_STREAM_TTY;
    }
    return RC_OK;
}

static bool is_init_of_a_box(pid_t pid)
{
    struct registry_box *boxes = NULL;
    size_t n = 0;
    bool found = false;
    if (registry_list(&boxes, &n, NULL) != RC_OK)
        return false;
    for (size_t i = 0; i < n; i++) {
        found = found || boxes[i].init == pid;
        registry_box_done(&boxes[i]);
    }
    free(boxes);
    return found;
}

/* Processes of the box that have left the tree (a daemon's double fork) would be lost in silence.
 * Who else lives below the PID 1 of a container is no business of the tree's.
 */
static enum rc look_for_strays(const struct checkpoint *c, struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    size_t n = 0;
    if (!is_box(c) || !is_init_of_a_box(c->tree[0].ppid))
        return RC_OK;
    enum rc rc = proc_children(c->tree[0].ppid, &list, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (list[i].pid != c->req->pid && list[i].state != 'Z' && !list[i].ending &&
            join_same(list[i].pid, c->req->pid, "pid"))
            return err_set(err, RC_UNSUPPORTED,
                           "process %d (%s) has detached itself from the command and would be "
                           "lost; run the program in the foreground",
                           (int)list[i].inner, list[i].comm);
    return RC_OK;
}

static enum rc look_at_tree(struct checkpoint *c, struct err *err)
{
    enum rc rc = proc_tree(c->req->pid, &c->tree, &c->n_tree, err);
    for (size_t i = 0; !rc && i < c->n_tree; i++)
        c->rss_bytes += c->tree[i].rss_bytes;
    if (!rc && c->tree[0].state == 'Z')
        rc = err_set(err, RC_NOT_FOUND, "process %d has ended", (int)c->req->pid);
    if (!rc)
        rc = saving_begin(&c->tree[0], &c->saving, err);
    return rc ? rc : look_for_strays(c, err);
}

static char **copy_list(char *const *list)
{
    size_t n = 0;
    while (list[n])
        n++;
    char **copy = mem_zalloc((n + 1) * sizeof(*copy));
    for (size_t i = 0; i < n; i++)
        copy[i] = mem_strdup(list[i]);
    return copy;
}

/* A directory of the tree's, as it sees it: its links lead to where they lead inside. */
static int open_inside(pid_t pid, const char *path)
{
    char top[32];
    (void)snprintf(top, sizeof(top), "/proc/%d/root", (int)pid);
    CLEANUP(fd_closep) int root = sys_openat(AT_FDCWD, top, O_PATH | O_DIRECTORY, 0);
    return root < 0 ? -1 : sys_open_in_root(root, path, O_RDONLY | O_DIRECTORY, 0, 0);
}

/* A restored tree says in its application directory which checkpoint it came from. */
static void look_at_ancestry(struct checkpoint *c)
{
    CLEANUP(buf_done) struct buf id = BUF_INIT;
    CLEANUP(buf_done) struct buf generation = BUF_INIT;
    CLEANUP(fd_closep) int dir = open_inside(c->req->pid, "run/chrek/app");
    if (dir < 0 || !is_box(c))
        return;
    if (fs_read_file(dir, "generation", 64, &generation, NULL) == RC_OK)
        c->meta.generation = strtoull(buf_str(&generation), NULL, 10);
    if (fs_read_file(dir, "checkpoint_id", 512, &id, NULL) == RC_OK && id.len) {
        id.data[strcspn(id.data, "\n")] = '\0';
        c->meta.parent_id = mem_strdup(id.data);
    }
}

static enum rc look(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct checkpoint *c = ctx;
    enum rc rc = look_at_tree(c, err);
    if (rc)
        return rc;
    c->meta.pid = c->req->pid;
    c->meta.root_pid = c->tree[0].inner;
    for (int i = 0; i < 3 && !rc; i++)
        rc = look_at_stream(c, i, err);
    if (!rc)
        rc = proc_link(c->req->pid, "cwd", &c->meta.cwd, err);
    if (!rc && c->req->command)
        c->meta.command = copy_list(c->req->command);
    else if (!rc)
        rc = proc_list(c->req->pid, "cmdline", &c->meta.command, err);
    if (rc)
        return rc;
    c->meta.name = mem_strdup(c->req->name);
    c->meta.notify = mem_strdup(c->req->notify);
    c->meta.host_shm = join_same(c->req->pid, getpid(), "mnt");
    c->meta.private_net = !join_same(c->req->pid, getpid(), "net");
    look_at_ancestry(c);
    host_describe(&c->meta);
    if (!c->req->container)
        return join_open(c->req->pid, &c->join, err);
    rc = container_describe(c->req->pid, c->req->container, &c->meta, err);
    return rc ? rc : container_external(c->req->pid, c->req->container, &c->external, err);
}

static enum rc examine(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct checkpoint *c = ctx;
    enum rc rc = preflight(c->req, err);
    return rc ? rc : gpus_find(c->tree, c->n_tree, &c->gpus, err);
}

/* ---- the GPU ---- */

static bool has_gpu(const void *ctx)
{
    return ((const struct checkpoint *)ctx)->gpus.n > 0;
}

static bool goes_on_with_gpu(const void *ctx)
{
    return has_gpu(ctx) && !((const struct checkpoint *)ctx)->req->stop;
}

static enum rc lock_gpu(void *ctx, uint64_t deadline, struct err *err)
{
    struct checkpoint *c = ctx;
    enum rc rc = gpus_lock(&c->gpus, deadline, err);
    if (rc)
        gpus_release(&c->gpus, c->engine); /* also after a hang, which nobody has taken back */
    return rc;
}

static enum rc save_gpu(void *ctx, uint64_t deadline, struct err *err)
{
    struct checkpoint *c = ctx;
    if (c->engine->progress)
        c->engine->progress(c->engine->arg, "Saving GPU memory", 0, 0);
    enum rc rc = gpus_save(&c->gpus, deadline, err);
    gpus_describe(&c->gpus, &c->meta);
    return rc;
}

static void release_gpu(void *ctx)
{
    struct checkpoint *c = ctx;
    if (!c->ended)
        gpus_release(&c->gpus, c->engine);
}

/* The checkpoint is good whatever comes of this: it is published first, then the failure is told.
 */
static enum rc resume_gpu(void *ctx, uint64_t deadline, struct err *err)
{
    struct checkpoint *c = ctx;
    (void)err;
    c->gpu_rc = gpus_resume(&c->gpus, deadline, &c->gpu_err);
    return RC_OK;
}

static enum rc check_gpu(void *ctx, uint64_t deadline, struct err *err)
{
    const struct checkpoint *c = ctx;
    (void)deadline;
    if (!c->gpu_rc)
        return RC_OK;
    return err_set(err, c->gpu_rc,
                   "checkpoint '%s' is safe, but the program stands still: %.300s; restore it from "
                   "the checkpoint",
                   c->req->id, c->gpu_err.msg);
}

static bool gpu_was_lost(const void *ctx)
{
    return ((const struct checkpoint *)ctx)->gpu_rc != RC_OK;
}

/* ---- stage, launch ---- */

/* A program that has been ended cannot go on when the store then says no; what can be known of that
 * is looked at before. */
static bool may_end_early(const struct checkpoint *c)
{
    const struct engine *e = c->engine;
    if (!c->req->stop || !c->req->early)
        return false;
    if (store_fits(c->req->store, c->rss_bytes, NULL) == RC_OK)
        return true;
    if (e->warn)
        e->warn(e->arg, "the store's quota may be too small for this checkpoint: the program is "
                        "ended when it is safe, not earlier");
    return false;
}

/* Whether the tree can leave its memory behind.  What it writes until that is stored takes memory
 * once more, which it must have, unless it ends at once.  In a PID namespace that ends with the
 * tree nobody is left, and orphans are children of its first process. */
static bool may_keep(const struct checkpoint *c)
{
    uint64_t room = 0;
    if (!cr_can_keep(c->engine->criu) || c->gpus.n || c->tree[0].inner == 1)
        return false;
    if (c->req->stop)
        return c->early && join_same(c->req->pid, getpid(), "pid");
    return c->rss_bytes <= c->req->keep_limit && room_of(c->req->pid, &room, NULL) == RC_OK &&
           room > c->rss_bytes;
}

static enum rc stage(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct checkpoint *c = ctx;
    enum rc rc = store_fits(c->req->store, 1, err); /* before anybody stands still for nothing */
    if (!rc)
        rc = store_begin(c->req->store, c->req->id, !c->req->replace, &c->staging, err);
    if (!rc && c->req->plain && store_staging_domain(c->staging))
        rc = err_set(err, RC_INVALID,
                     "a plain checkpoint is one that any CRIU can read: it cannot be "
                     "encrypted; leave out --format plain, or the key");
    if (!rc && c->req->plain && (c->req->early || c->req->incremental))
        rc = err_set(err, RC_INVALID,
                     "a plain checkpoint is written while the program stands still: leave out "
                     "--format plain, or --early and --incremental");
    if (!rc && c->req->plain) /* shared memory, and what small mappings hold, is CRIU's to write */
        store_staging_follow(c->staging);
    if (rc || (c->req->plain && !capture_can_write_images(c->engine->criu)))
        return rc;
    c->early = may_end_early(c);
    struct capture_options o = {.store = c->req->store,
                                .outside = c->req->container != NULL,
                                .criu = c->engine->criu,
                                .into = c->staging,
                                .plain = c->req->plain,
                                .name = c->req->name,
                                .parent = c->meta.parent_id,
                                .hold = !c->req->stop || c->early,
                                .keep = may_keep(c),
                                .rss_bytes = c->rss_bytes,
                                .codec = c->req->codec};
    return capture_open(&o, &c->capture, err);
}

static void unstage(void *ctx)
{
    struct checkpoint *c = ctx;
    capture_freep(&c->capture);
    store_abortp(&c->staging);
}

static enum rc launch(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct checkpoint *c = ctx;
    int pass[3] = {store_staging_fd(c->staging)};
    struct capture_launch *more = &c->capture_launch;
    enum rc rc = c->capture ? capture_launch(c->capture, 1, more, err) : RC_OK;
    if (rc)
        return rc;
    memcpy(pass + 1, more->fds, more->n_fds * sizeof(int));
    struct cr_launch l = {.criu = c->engine->criu,
                          .enter = join_enter,
                          .enter_arg = &c->join,
                          .pass_fds = pass,
                          .n_pass = 1 + more->n_fds,
                          .env = more->env,
                          .cancel = c->engine->cancel,
                          .watched = true,
                          .until = c->deadline,
                          .deaf = true};
    return cr_session_open(&l, &c->session, err);
}

static void unlaunch(void *ctx)
{
    struct checkpoint *c = ctx;
    cr_session_freep(&c->session);
}

/* ---- reading ahead ---- */

static bool reads_ahead(const void *ctx)
{
    const struct checkpoint *c = ctx;
    return c->req->incremental && c->capture;
}

/* Half of the time at most: the rest must do for a freeze in which all is copied. */
static enum rc read_ahead(void *ctx, uint64_t deadline, struct err *err)
{
    struct checkpoint *c = ctx;
    struct err why = ERR_INIT;
    uint64_t now = clock_now();
    struct watch *w =
        watch_counter(c->engine, "Reading ahead", capture_counter(c->capture), c->rss_bytes);
    enum rc rc = c->gpus.n ? err_set(&why, RC_UNSUPPORTED, "a GPU may write to its memory unseen")
                           : capture_ahead(c->capture, c->req->pid,
                                           deadline ? now + (deadline - now) / 2 : 0, &why);
    watch_stop(w);
    if (rc && !precopy_can_do_without(rc)) {
        if (err)
            *err = why;
        return rc;
    }
    if (rc && c->engine->warn) {
        CLEANUP(mem_freep)
        char *text = mem_asprintf("the program stands still for all of its memory: %s", why.msg);
        c->engine->warn(c->engine->arg, text);
    }
    return RC_OK;
}

/* ---- dump ---- */

/* /dev/shm of a box or container is its own; the host's belongs to everybody. */
static enum rc save_shm(struct checkpoint *c, struct err *err)
{
    if (join_same(c->req->pid, getpid(), "mnt"))
        return RC_OK;
    CLEANUP(fd_closep) int dir = open_inside(c->req->pid, "dev/shm");
    if (dir < 0)
        return errno == ENOENT ? RC_OK : err_sys(err, "open the /dev/shm of %d", (int)c->req->pid);
    return tmpfs_save(dir, store_staging_fd(c->staging), HOST_SHM_ARCHIVE, &c->meta.has_shm, err);
}

static void add_timing(struct metadata *m, const char *step, uint64_t ns)
{
    m->timings[m->n_timings++] = (struct metadata_timing){.step = mem_strdup(step), .ns = ns};
}

/* What the metadata says of the making itself: CRIU's version, from its log, and how long each
 * step took until now. */
static void describe_making(struct checkpoint *c)
{
    static const char key[] = "Version: ";
    CLEANUP(fd_closep)
    int fd = sys_openat(store_staging_fd(c->staging), DUMP_LOG_NAME, O_RDONLY, 0);
    char text[1024];
    size_t n = 0;
    if (fd >= 0 && sys_read_full(fd, text, sizeof(text) - 1, &n, NULL) == RC_OK) {
        text[n] = '\0';
        char *version = strstr(text, key);
        if (version) {
            version += sizeof(key) - 1;
            version[strspn(version, "0123456789.")] = '\0';
            c->meta.criu_version = mem_strdup(version);
        }
    }
    if (c->meta.timings)
        return;
    c->meta.timings = mem_zalloc((c->timings->n + 1) * sizeof(*c->meta.timings));
    for (size_t i = 0; i < c->timings->n; i++)
        add_timing(&c->meta, c->timings->step[i].name, c->timings->step[i].ns);
    if (c->req->stop && !c->ended) /* we are in the middle of it */
        add_timing(&c->meta, "dump", clock_now() - c->frozen_at);
}

/* dumped: CRIU has ended */
static enum rc publish_now(struct checkpoint *c, bool dumped, struct err *err)
{
    describe_making(c);
    enum rc rc =
        dumped && !c->req->plain ? dump_log_pack(store_staging_fd(c->staging), err) : RC_OK;
    if (!rc && c->capture)
        rc = capture_store(c->capture, &c->meta, err);
    else if (!rc)
        c->meta.pages_bytes = watch_pages_bytes(store_staging_fd(c->staging));
    /* Who sees the checkpoint may want the next one at once; we have no more to do with the tree.
     */
    if (!rc && dumped)
        saving_endp(&c->saving);
    if (!rc)
        rc = store_commit(c->staging, &c->meta, c->req->replace, err);
    c->published = !rc;
    return rc;
}

/* From the freeze to the thaw a signal must not end us: who would undo it? */
static void arm(const struct checkpoint *c)
{
    if (c->engine->cancel && c->engine->by_signal)
        cancel_arm(c->engine->cancel, 0);
}

static void disarm(const struct checkpoint *c)
{
    if (c->engine->cancel && c->engine->by_signal)
        cancel_disarm(c->engine->cancel);
}

/* CRIU only waits for us, so that all is well also if we end; we may be waiting for a disk. */
static void limit_copying(const struct checkpoint *c, bool begins)
{
    if (c->engine->cancel && c->engine->by_signal)
        cancel_limit(c->engine->cancel, begins ? HANG_S : 0);
}

/* The program goes on, and what is still to be done may hang: a store that does not answer. */
static void limit_undo(const struct checkpoint *c)
{
    if (c->engine->cancel && c->engine->by_signal)
        cancel_limit(c->engine->cancel, HANG_S);
}

/* What was read of a tree that CRIU has let go of meanwhile, by its death, is of no moment. */
static enum rc check_hold(const struct checkpoint *c, struct err *err)
{
    struct proc_facts now;
    for (size_t i = 0; i < c->n_tree; i++)
        if (c->tree[i].state != 'Z' && proc_facts_read(c->tree[i].pid, &now, NULL) == RC_OK &&
            now.start == c->tree[i].start && now.state != 'Z' && now.state != 'X' && !now.tracer)
            return err_set(err, RC_IO, "CRIU has ended while memory was copied");
    return RC_OK;
}

static enum rc at_event(struct checkpoint *c, enum cr_event event, struct err *err)
{
    if (event == CR_PRE_DUMP)
        c->frozen_at = clock_now();
    if (event == CR_QUERY_EXT_FILES && c->capture) /* which it asks for when all is frozen */
        capture_frozen(c->capture, c->req->pid);
    if (event != CR_POST_DUMP)
        return RC_OK;
    size_t mended = 0;
    limit_copying(c, true);
    enum rc rc = c->capture ? capture_copy(c->capture, c->req->pid, c->engine->cancel, err) : RC_OK;
    limit_copying(c, false);
    if (!rc)
        rc = cr_mend(store_staging_fd(c->staging), &mended, err);
    if (!rc)
        rc = save_shm(c, err);
    if (!rc)
        rc = root_changes_save(c->req->pid, store_staging_fd(c->staging), &c->meta, err);
    if (!rc)
        rc = check_hold(c, err);
    if (rc || !c->req->stop)
        return rc;
    if (cancel_asked(c->engine->cancel))
        return cancel_error(c->engine->cancel, err);
    disarm(c); /* CRIU only waits for us, and lets the tree go when we end */
    c->meta.freeze_ns = clock_now() - c->frozen_at; /* it never thaws: until here counts */
    c->copied = true;
    rc = c->early ? RC_OK : publish_now(c, false, err);
    if (!rc && c->req->stopping)
        c->req->stopping(c->req->stopping_arg);
    arm(c);
    return rc;
}

static enum rc on_event(void *arg, enum cr_event event, pid_t pid, int fd, struct err *err)
{
    struct checkpoint *c = arg;
    (void)pid;
    fd_closep(&fd);
    enum rc rc = at_event(c, event, err);
    c->refused = c->refused || rc;
    return rc;
}

/* CRIU may go down with the PID namespace of the tree that it has ended, before it can say so. */
static bool was_ended(const struct checkpoint *c)
{
    struct proc_facts f;
    enum rc rc = proc_facts_read(c->req->pid, &f, NULL);
    return c->early && c->copied &&
           (rc == RC_NOT_FOUND || (!rc && (f.start != c->tree[0].start || f.state == 'Z')));
}

static struct cr_opts dump_options(const struct checkpoint *c)
{
    bool outside = c->req->container != NULL; /* CRIU is not in its PID namespace */
    return (struct cr_opts){.pid = outside ? c->req->pid : c->tree[0].inner,
                            .external = (const char *const *)c->external,
                            .images_fd = cr_session_fd(0),
                            .work_fd = cr_session_fd(0),
                            .log_file = DUMP_LOG_NAME,
                            .log_level = 4,
                            .config_file = c->capture_launch.config_file,
                            .lazy_pages = c->capture_launch.lazy_pages,
                            .leave_running = !c->req->stop,
                            .shell_job = true,
                            .tcp_established = c->req->tcp_established,
                            .tcp_close = !c->req->tcp_established,
                            .tcp_skip_in_flight = c->req->skip_in_flight,
                            .file_locks = true,
                            .link_remap = true,
                            .ext_unix_sk = true,
                            .ext_masters = true,
                            .orphan_pts_master = true,
                            .force_irmap = true,
                            .ghost_limit =
                                c->req->ghost_limit ? c->req->ghost_limit : ENGINE_GHOST_LIMIT};
}

/* The checkpoint is published, and CRIU has not ended the tree: two of it must not go on. */
static void end_tree(const struct checkpoint *c)
{
    CLEANUP(mem_freep) struct proc_facts *now = NULL;
    struct proc_facts root;
    size_t n = 0;
    bool lives =
        proc_facts_read(c->req->pid, &root, NULL) == RC_OK && root.start == c->tree[0].start;
    if (lives && proc_tree(c->req->pid, &now, &n, NULL) == RC_OK)
        for (size_t i = 0; i < n; i++)
            (void)kill(now[i].pid, SIGKILL);
    for (size_t i = 0; i < c->n_tree; i++) /* whose parent CRIU has ended already */
        if (proc_facts_read(c->tree[i].pid, &root, NULL) == RC_OK && root.start == c->tree[i].start)
            (void)kill(c->tree[i].pid, SIGKILL);
}

/* It has left them in repair mode, too, once the others may answer again. */
static void end_repair(const struct checkpoint *c)
{
    struct err why = ERR_INIT;
    for (size_t i = 0; i < c->n_tree; i++) {
        enum rc rc = tcp_repair_end(c->tree[i].pid, &why);
        if (rc && rc != RC_NOT_FOUND && c->engine->warn)
            c->engine->warn(c->engine->arg, why.msg);
    }
}

/* A CRIU that has died has left connections blocked. */
static void unblock_connections(const struct checkpoint *c)
{
    struct err why = ERR_INIT;
    char path[32];
    bool apart = !join_same(c->req->pid, getpid(), "net");
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)c->req->pid);
    CLEANUP(fd_closep) int net = apart ? sys_openat(AT_FDCWD, path, O_RDONLY, 0) : -1;
    if (apart && net < 0)
        return; /* it has gone, and its network with it */
    bool chain = apart && c->req->container;
    if (cr_netlock_undo(store_staging_fd(c->staging), DUMP_LOG_NAME, net, chain, &why) == RC_OK ||
        !c->engine->warn)
        return;
    CLEANUP(mem_freep)
    char *text = mem_asprintf("CRIU may have left connections blocked, and that cannot be undone: "
                              "%s; `iptables -S` and `ip6tables -S` show rules with its mark "
                              "0xc114, and a chain CRIU",
                              why.msg);
    c->engine->warn(c->engine->arg, text);
}

/* A dump that has failed: let the tree go, which the undo of the steps before needs, and say what
 * has become of it. */
static enum rc end_dump(struct checkpoint *c, enum rc rc, struct err *err)
{
    struct err why = ERR_INIT, left = ERR_INIT;
    bool broken = cr_session_broken(c->session);
    cr_session_freep(&c->session);
    if (c->capture)
        capture_forget(c->capture, c->req->pid);
    if (!c->refused) /* else CRIU's words are of what has come of that */
        rc = cr_explain_file(store_staging_fd(c->staging), DUMP_LOG_NAME, rc, err);
    if (err)
        why = *err;
    if (broken) {
        unblock_connections(c);
        end_repair(c);
    }
    if (broken && survivors_mend(c->survivors, clock_now() + MEND_NS, &left) != RC_OK)
        rc = err_set(err, rc, "%.300s, and %s", why.msg, left.msg);
    limit_undo(c);
    if (left.msg[0])
        return rc;
    return rc == RC_CANCELLED ? err_set(err, rc, "%.300s, and the program goes on", why.msg) : rc;
}

static enum rc dump(void *ctx, uint64_t deadline, struct err *err)
{
    struct checkpoint *c = ctx;
    struct cr_opts opts = dump_options(c);
    struct cr_hooks hooks = {.event = on_event, .arg = c};
    struct watch *w =
        c->capture
            ? watch_counter(c->engine, "Saving memory", capture_counter(c->capture), c->rss_bytes)
            : watch_start(c->engine, "Saving memory", store_staging_fd(c->staging), c->rss_bytes);
    uint64_t begun = clock_now();
    arm(c);
    survivors_note(c->tree, c->n_tree, &c->survivors);
    c->meta.leave_running = !c->req->stop;
    c->meta.tcp_established = opts.tcp_established;
    c->meta.tcp_close = opts.tcp_close;
    c->meta.shell_job = c->meta.file_locks = c->meta.link_remap = c->meta.ext_masters = true;
    enum rc rc = cr_dump(c->session, &opts, &hooks, deadline, err);
    uint64_t thawed = clock_now();
    watch_stop(w);
    if (c->capture)
        capture_thawed(c->capture);
    c->ended = was_ended(c) || (!rc && c->early);
    if (rc && c->ended)
        return RC_OK;
    if (rc && c->published) {
        end_tree(c); /* before CRIU lets go of it */
        return RC_OK;
    }
    if (rc)
        return end_dump(c, rc, err);
    disarm(c); /* storing may be ended at any time */
    if (!c->req->stop)
        c->meta.freeze_ns = thawed - (c->frozen_at ? c->frozen_at : begun);
    return RC_OK;
}

/* ---- publish ---- */

static enum rc publish(void *ctx, uint64_t deadline, struct err *err)
{
    (void)deadline;
    struct checkpoint *c = ctx;
    if (c->published)
        return RC_OK;
    if (c->engine->progress)
        c->engine->progress(c->engine->arg, "Storing", 0, 0);
    return publish_now(c, true, err);
}

static const struct step steps[] = {
    {"look", "look at the processes", look, NULL, 0},
    {"examine", "save these processes", examine, NULL, 0},
    {"stage", "prepare the store", stage, unstage, 0},
    {"launch", "start CRIU", launch, unlaunch, 60 * CLOCK_S},
    {"ahead", "read memory ahead", read_ahead, NULL, 0, reads_ahead},
    {"gpu-lock", "bring the GPU to rest", lock_gpu, release_gpu, 0, has_gpu},
    {"gpu-save", "save the GPU memory", save_gpu, release_gpu, 0, has_gpu},
    {"dump", "save the processes", dump, NULL, 0},
    {"gpu-resume", "go on with the GPU", resume_gpu, NULL, 0, goes_on_with_gpu},
    {"publish", "publish the checkpoint", publish, NULL, 0},
    {"gpu-check", "go on with the GPU", check_gpu, NULL, 0, gpu_was_lost},
};

static void copy_labels(struct metadata *m, const struct engine_checkpoint_request *req)
{
    m->labels = mem_zalloc((req->n_labels + 1) * sizeof(*m->labels));
    for (size_t i = 0; i < req->n_labels; i++)
        m->labels[m->n_labels++] = (struct metadata_label){mem_strdup(req->labels[i].key),
                                                           mem_strdup(req->labels[i].value)};
}

enum rc engine_checkpoint(const struct engine *e, const struct engine_checkpoint_request *req,
                          struct engine_outcome *out, struct err *err)
{
    struct checkpoint c = {.engine = e, .req = req, .out = out, .join = JOIN_NOTHING};
    struct engine_outcome o = {.master = -1};
    uint64_t limit = req->timeout_ns ? req->timeout_ns : ENGINE_TIMEOUT_NS;
    copy_labels(&c.meta, req);
    c.timings = &o.timings;
    c.deadline = clock_now() + limit;
    enum rc rc = steps_run(steps, ARRAY_LEN(steps), &c, c.deadline, NULL, &o.timings, err);
    o.freeze_ns = c.meta.freeze_ns;
    o.sync_ns = c.meta.sync_ns;
    o.pages_bytes = c.meta.pages_bytes;
    o.total_bytes = c.meta.total_bytes;
    cr_session_freep(&c.session);
    survivors_freep(&c.survivors);
    saving_endp(&c.saving);
    capture_freep(&c.capture);
    store_abortp(&c.staging);
    gpus_done(&c.gpus);
    join_done(&c.join);
    disarm(&c);
    container_external_freep(&c.external);
    metadata_done(&c.meta);
    free(c.tree);
    if (rc == RC_NO_SPACE) { /* what it has packed in vain goes at once, if nobody else is at it */
        struct store_collected collected;
        (void)!store_gc(req->store, false, &collected, NULL);
    }
    if (!rc)
        *out = o;
    return rc && c.ended ? err_ctx(err, rc, "the program was ended early and is lost") : rc;
}
