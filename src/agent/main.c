/* chrek-agent: watches its node's pods and captures those that ask for it. */
#include "agent/attend.h"
#include "agent/door.h"
#include "agent/log.h"
#include "agent/metrics.h"
#include "agent/pick.h"
#include "agent/rescue.h"
#include "agent/serve.h"
#include "agent/settings.h"
#include "agent/table.h"
#include "agent/work.h"
#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/opt.h"
#include "base/sys.h"
#include "kube/client.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define RESYNC_NS (30 * CLOCK_S)

struct agent {
    struct settings settings;
    struct kube *kube;
    struct cri *cri;
    struct store *store;
    struct metrics *metrics;
    struct table *table;
    struct serve *serve;
    struct door *door;
    pthread_t watcher, signals;
    atomic_bool stop;
    sigset_t ending; /* the signals that end it */
};

/* ---- watching ---- */

static void count_pods(struct agent *a)
{
    size_t watched = 0, waiting = 0;
    table_count(a->table, a->settings.node, &watched, &waiting);
    metrics_set_pods(a->metrics, watched, waiting);
}

static void on_begin(void *arg)
{
    table_begin_list(((struct agent *)arg)->table);
}

static void on_end(void *arg)
{
    struct agent *a = arg;
    table_end_list(a->table);
    count_pods(a);
}

static void on_pod(void *arg, bool gone, yyjson_val *object)
{
    struct agent *a = arg;
    struct err err = ERR_INIT;
    struct kube_pod p;
    if (kube_pod_read(object, &p, &err) != RC_OK) {
        log_warn("pod not understood", "error", err.msg, NULL);
        return;
    }
    if (gone)
        table_remove(a->table, p.uid);
    else
        table_put(a->table, &p);
    kube_pod_done(&p);
    count_pods(a);
}

static void on_trouble(void *arg, const struct err *why, uint64_t pause_ns)
{
    struct agent *a = arg;
    char pause[32];
    (void)snprintf(pause, sizeof(pause), "%ju ms", (uintmax_t)(pause_ns / CLOCK_MS));
    metrics_add(a->metrics, METRIC_WATCH_ERRORS, 1);
    log_warn("pods cannot be watched", "error", why->msg, "again_in", pause, NULL);
}

static void *watch_pods(void *arg)
{
    struct agent *a = arg;
    const char *name_space = a->settings.name_space;
    CLEANUP(mem_freep)
    char *path = name_space ? mem_asprintf("/api/v1/namespaces/%s/pods", name_space)
                            : mem_strdup("/api/v1/pods");
    CLEANUP(mem_freep) char *fields = mem_asprintf("spec.nodeName=%s", a->settings.node);
    const struct kube_collection c = {.path = path, .labels = PICK_SELECTOR, .fields = fields};
    const struct kube_follower f = {
        .begin = on_begin, .end = on_end, .take = on_pod, .trouble = on_trouble, .arg = a};
    kube_follow(a->kube, &c, &f, &a->stop);
    return NULL;
}

static void *wait_for_signal(void *arg)
{
    struct agent *a = arg;
    int number = 0;
    while (sigwait(&a->ending, &number) != 0)
        ;
    atomic_store(&a->stop, true);
    table_wake(a->table);
    return NULL;
}

/* ---- working ---- */

static void work(struct agent *a)
{
    const struct attend attend = {.settings = &a->settings,
                                  .kube = a->kube,
                                  .cri = a->cri,
                                  .store = a->store,
                                  .metrics = a->metrics,
                                  .stop = &a->stop};
    while (!atomic_load(&a->stop)) {
        const struct kube_pod *p = table_take(a->table, a->settings.node, clock_now() + RESYNC_NS);
        if (!p)
            continue;
        char *done = NULL;
        uint64_t due = 0;
        attend_pod(&attend, p, &done, &due);
        table_give(a->table, p, done, due);
        free(done);
        count_pods(a);
    }
}

/* ---- starting ---- */

/* PIDs of the container runtime must be ours. */
static enum rc check_proc(const struct settings *s, struct err *err)
{
    struct stat host, ours;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/1/ns/pid", s->host_proc);
    if (stat(path, &host) < 0)
        return errno == ENOENT ? RC_OK : err_sys(err, "HOST_PROC: '%s'", path);
    if (stat("/proc/1/ns/pid", &ours) < 0)
        return err_sys(err, "/proc/1/ns/pid");
    if (host.st_ino == ours.st_ino)
        return RC_OK;
    return err_set(err, RC_INVALID,
                   "the agent does not see the node's processes; its pod needs hostPID: true");
}

static enum rc open_kube(struct agent *a, struct err *err)
{
    CLEANUP(kube_config_done) struct kube_config config = {.server = NULL};
    const char *file = a->settings.kubeconfig;
    enum rc rc = file && *file
                     ? kube_config_read(file, a->settings.context, &config, err)
                     : kube_config_in_cluster(KUBE_POD_DIR, getenv("KUBERNETES_SERVICE_HOST"),
                                              getenv("KUBERNETES_SERVICE_PORT"), &config, err);
    return rc ? rc : kube_open(&config, &a->kube, err);
}

static enum rc ask_runtime(struct agent *a, struct err *err)
{
    struct cri_version v;
    enum rc rc = cri_open(a->settings.runtime, 0, &a->cri, err);
    if (!rc)
        rc = cri_version(a->cri, &v, err);
    if (rc)
        return err_ctx(err, rc, "'%.200s'", a->settings.runtime);
    log_info("container runtime", "name", v.name, "version", v.version, NULL);
    cri_version_done(&v);
    return RC_OK;
}

static enum rc open_door(struct agent *a, struct err *err)
{
    const struct door_tools tools = {.settings = &a->settings,
                                     .kube = a->kube,
                                     .cri = a->cri,
                                     .store = a->store,
                                     .metrics = a->metrics,
                                     .stop = &a->stop};
    return *a->settings.socket ? door_start(a->settings.socket, &tools, &a->door, err) : RC_OK;
}

static enum rc open_all(struct agent *a, struct err *err)
{
    enum rc rc = settings_check(&a->settings, err);
    if (!rc)
        rc = check_proc(&a->settings, err);
    if (!rc)
        rc = open_kube(a, err);
    if (!rc)
        rc = store_open(a->settings.store, &a->store, err);
    if (!rc)
        rc = ask_runtime(a, err);
    if (!rc && *a->settings.listen)
        rc = serve_start(a->settings.listen, a->settings.node, a->metrics, &a->serve, err);
    return rc ? rc : open_door(a, err);
}

static void close_all(struct agent *a)
{
    door_stopp(&a->door);
    serve_stopp(&a->serve);
    table_freep(&a->table);
    metrics_freep(&a->metrics);
    store_freep(&a->store);
    cri_closep(&a->cri);
    kube_closep(&a->kube);
}

static int run(struct agent *a)
{
    struct err err = ERR_INIT;
    char port[8] = "";
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigemptyset(&a->ending);
    (void)sigaddset(&a->ending, SIGTERM);
    (void)sigaddset(&a->ending, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &a->ending, NULL); /* also of the threads to come */
    a->metrics = metrics_new();
    a->table = table_new();
    if (open_all(a, &err) != RC_OK) {
        log_error("the agent cannot start", "error", err.msg, NULL);
        close_all(a);
        return err.rc == RC_INVALID ? 2 : 1;
    }
    if (a->serve)
        (void)snprintf(port, sizeof(port), "%u", serve_port(a->serve));
    log_info("watching pods", "node", a->settings.node, "namespace", a->settings.name_space,
             "store", store_path(a->store), "port", port, "version", CHREK_VERSION, NULL);
    if (pthread_create(&a->signals, NULL, wait_for_signal, a) != 0 ||
        pthread_create(&a->watcher, NULL, watch_pods, a) != 0)
        abort(); /* no threads at all */
    work(a);
    (void)pthread_join(a->watcher, NULL);
    (void)pthread_join(a->signals, NULL);
    log_info("ended", NULL);
    close_all(a);
    return 0;
}

/* ---- the command line ---- */

static int watch_main(const struct opt_command *self, int argc, char **argv)
{
    static struct agent a;
    struct err err = ERR_INIT;
    int first = 0;
    settings_init(&a.settings);
    if (opt_parse(self, &a.settings, argc, argv, &first, &err) != RC_OK) {
        log_error("the command line is wrong", "error", err.msg, NULL);
        return 2;
    }
    return run(&a);
}

static const struct opt_command cmd_watch = {
    .name = "watch",
    .summary = "capture the pods of this node that ask for it",
    .synopsis = "[OPTIONS]",
    .description =
        "Watches the pods of its node that have the label nvidia.com/checkpoint-source=true. Once "
        "one is ready, its container is captured: its processes, memory and what it has changed in "
        "its root file system. The checkpoint appears whole or not at all; then the program is "
        "told "
        "by the file that DYN_CHECKPOINT_SIGNAL_FILE names. What fails leaves the container "
        "running.\n\n"
        "With --socket it also restores: a container whose command is restore-entrypoint and that "
        "has the socket mounted gets its processes back, without any privileges of its own, from a "
        "checkpoint of its own namespace.\n\n"
        "What the agent knows is on the pods, as annotations, and in the store: it may be ended "
        "and "
        "started again at any time.",
    .examples =
        "  chrek-agent watch --kubeconfig ~/.kube/config --node worker-1 --store /var/ckpt\n",
    .opts = settings_options,
    .run = watch_main,
};
static const struct opt_command *const commands[] = {&cmd_watch, NULL};

static const struct opt_program program = {
    .name = "chrek-agent",
    .summary = "checkpoint containers of a Kubernetes node",
    .description =
        "Runs on every node, as a DaemonSet. Without arguments it does what `chrek-agent "
        "watch` does.",
    .commands = commands,
    .exit_status = "0  it was asked to end (SIGTERM, SIGINT)\n"
                   "1  it cannot start: the log says why\n"
                   "2  the command line or environment is wrong\n",
    .environment = "NODE_NAME, CHECKPOINT_DIR, CONTAINERD_SOCKET, HOST_PROC, LISTEN_ADDR, "
                   "RESTRICTED_NAMESPACE, CHREK_AGENT_SOCKET, CRIU_GHOST_LIMIT, CRIU_TIMEOUT  as "
                   "the options of `watch` "
                   "that name them\n",
    .files = KUBE_POD_DIR "  the service account of the agent's pod\n",
};

static int print(const struct buf *text)
{
    struct err err = ERR_INIT;
    return sys_write_all(STDOUT_FILENO, buf_str(text), text->len, &err) ? 1 : 0;
}

static int help(const struct opt_command *about)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (about)
        opt_help_command(&program, about, &text);
    else
        opt_help_program(&program, &text);
    return print(&text);
}

/* For the build: the man pages, from the same tables. */
static int write_man(const char *dir)
{
    CLEANUP(buf_done) struct buf all = BUF_INIT;
    CLEANUP(buf_done) struct buf one = BUF_INIT;
    CLEANUP(mem_freep) char *all_path = mem_asprintf("%s/chrek-agent.1", dir);
    CLEANUP(mem_freep) char *one_path = mem_asprintf("%s/chrek-agent-watch.1", dir);
    struct err err = ERR_INIT;
    opt_man_program(&program, &all);
    opt_man_command(&program, &cmd_watch, &one);
    enum rc rc = fs_write_whole(AT_FDCWD, all_path, all.data, all.len, 0644, &err);
    if (!rc)
        rc = fs_write_whole(AT_FDCWD, one_path, one.data, one.len, 0644, &err);
    if (rc)
        (void)fprintf(stderr, "chrek-agent: error: %s\n", err.msg);
    return rc != RC_OK;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
            return true;
    return false;
}

int main(int argc, char **argv)
{
    const char *word = argc > 1 ? argv[1] : "watch";
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (strcmp(word, "--version") == 0) {
        buf_adds(&text, "chrek-agent " CHREK_VERSION "\n");
        return print(&text);
    }
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0)
        return help(NULL);
    if (strcmp(word, "__man") == 0 && argc == 3)
        return write_man(argv[2]);
    if (strcmp(word, WORK_COMMAND) == 0)
        return work_main(STDIN_FILENO, STDOUT_FILENO);
    if (strcmp(word, RESCUE_COMMAND) == 0)
        return rescue_main(STDIN_FILENO, STDOUT_FILENO);
    if (asks_for_help(argc, argv))
        return help(&cmd_watch);
    bool named = strcmp(word, "watch") == 0;
    if (!named && word[0] != '-') {
        (void)fprintf(
            stderr, "chrek-agent: error: unknown command '%.64s'; see chrek-agent --help\n", word);
        return 2;
    }
    int skip = argc > 1 && named ? 2 : 1;
    return watch_main(&cmd_watch, argc > 1 ? argc - skip : 0, argv + (argc > 1 ? skip : argc));
}
