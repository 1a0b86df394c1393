#include "agent/settings.h"

#include "agent/log.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/num.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT(field) .offset = offsetof(struct settings, field)

const struct opt settings_options[] = {
    {.name = "node",
     .kind = OPT_STRING,
     .arg = "NAME",
     AT(node),
     .env = "NODE_NAME",
     .help = "The node whose pods are captured."},
    {.name = "namespace",
     .kind = OPT_STRING,
     .arg = "NAME",
     AT(name_space),
     .env = "RESTRICTED_NAMESPACE",
     .help = "Watch pods of this namespace only. Default: of all."},
    {.name = "store",
     .kind = OPT_STRING,
     .arg = "URL",
     AT(store),
     .env = "CHECKPOINT_DIR",
     .help = "Where checkpoints go: a directory or object storage. Default: /checkpoints."},
    {.name = "runtime",
     .kind = OPT_STRING,
     .arg = "SOCKET",
     AT(runtime),
     .env = "CONTAINERD_SOCKET",
     .help = "Socket of the container runtime (CRI). Default: /run/containerd/containerd.sock."},
    {.name = "host-proc",
     .kind = OPT_STRING,
     .arg = "DIR",
     AT(host_proc),
     .env = "HOST_PROC",
     .help = "The node's /proc, to make sure that the agent sees the node's processes. Default: "
             "/host/proc, if it is there."},
    {.name = "listen",
     .kind = OPT_STRING,
     .arg = "[HOST]:PORT",
     AT(listen),
     .env = "LISTEN_ADDR",
     .help = "Where /health and /metrics are served; empty is nowhere. Default: :8080."},
    {.name = "socket",
     .kind = OPT_STRING,
     .arg = "PATH",
     AT(socket),
     .env = "CHREK_AGENT_SOCKET",
     .help = "Where containers of this node ask to be restored: a socket, whose folder is mounted "
             "for them. Default: nowhere."},
    {.name = "signal-from",
     .kind = OPT_STRING,
     .arg = "WHO",
     AT(from),
     .env = "CHECKPOINT_SIGNAL_FROM",
     .help = "Who asks for checkpoints: watcher, that is, labels of pods. Default: watcher."},
    {.name = "kubeconfig",
     .kind = OPT_STRING,
     .arg = "FILE",
     AT(kubeconfig),
     .env = "KUBECONFIG",
     .help = "How to reach the API server. Default: by the service account of the agent's pod."},
    {.name = "context",
     .kind = OPT_STRING,
     .arg = "NAME",
     AT(context),
     .help = "Which context of the kubeconfig. Default: its current one."},
    {.name = "format",
     .kind = OPT_STRING,
     .arg = "FORMAT",
     AT(format),
     .env = "CHREK_FORMAT",
     .help = "How memory is stored: packed, or plain (page images that any CRIU can read). "
             "Default: packed."},
    {.name = "compression",
     .kind = OPT_STRING,
     .arg = "CODEC",
     AT(compression),
     .env = "CHREK_COMPRESSION",
     .help = "Of packed memory: lz4, zstd or raw. Default: lz4."},
    {.name = "criu",
     .kind = OPT_STRING,
     .arg = "PATH",
     AT(criu),
     .env = "CHREK_CRIU",
     .help = "The criu program, 4.2 or newer. Default: the one that was installed with chrek."},
    {.name = "external",
     .kind = OPT_STRING,
     .arg = "LIST",
     AT(external),
     .env = "EXTERNAL_MOUNTS",
     .help =
         "Further external resources for CRIU, separated by commas: mnt[/data]:/data. Each mount "
         "of a container is one already."},
    {.name = "ghost-limit",
     .kind = OPT_SIZE,
     .arg = "SIZE",
     AT(ghost_limit),
     .help = "Largest deleted but still open file to keep; also by CRIU_GHOST_LIMIT, in bytes. "
             "Default: 512M."},
    {.name = "timeout",
     .kind = OPT_U64,
     .arg = "SECONDS",
     AT(timeout_s),
     .help = "Bound on one capture; also by CRIU_TIMEOUT. Default: 30 minutes."},
    {.name = "tries",
     .kind = OPT_U64,
     .arg = "N",
     AT(tries),
     .env = "CHREK_CAPTURE_TRIES",
     .help = "How often the capture of one container is tried before it counts as failed. "
             "Default: 3."},
    {.name = "backoff",
     .kind = OPT_DURATION,
     .arg = "TIME",
     AT(backoff_ns),
     .env = "CHREK_CAPTURE_BACKOFF",
     .help = "Pause after the first failed try; each further one is twice as long. Default: 10s."},
    {.name = NULL},
};

void settings_init(struct settings *s)
{
    *s = (struct settings){.node = "unknown",
                           .store = "/checkpoints",
                           .runtime = "/run/containerd/containerd.sock",
                           .host_proc = "/host/proc",
                           .listen = ":8080",
                           .socket = "",
                           .from = "watcher",
                           .format = "packed",
                           .compression = "lz4",
                           .tries = 3,
                           .backoff_ns = 10 * CLOCK_S};
}

/* The contract wants a number that is none to be passed over, with a warning. */
static void read_number(const char *name, uint64_t *out)
{
    struct err err = ERR_INIT;
    const char *text = getenv(name);
    if (!text || !*text || *out)
        return;
    if (num_parse_u64(text, 0, UINT32_MAX, out, &err) != RC_OK)
        log_warn("variable ignored", "name", name, "value", text, "error", err.msg, NULL);
}

enum rc settings_check(struct settings *s, struct err *err)
{
    read_number("CRIU_GHOST_LIMIT", &s->ghost_limit);
    read_number("CRIU_TIMEOUT", &s->timeout_s);
    if (s->name_space && !*s->name_space)
        s->name_space = NULL;
    if (strcasecmp(s->from, "watcher") != 0)
        return err_set(err, RC_UNSUPPORTED,
                       "CHECKPOINT_SIGNAL_FROM=%.40s: checkpoints are asked for by labels of pods "
                       "only; set it to watcher",
                       s->from);
    if (s->tries < 1 || s->tries > 100)
        return err_set(err, RC_INVALID, "--tries: 1..100");
    if (s->ghost_limit > UINT32_MAX || s->timeout_s > UINT32_MAX)
        return err_set(err, RC_INVALID, "--ghost-limit and --timeout: less than 2^32");
    s->plain = strcmp(s->format, "plain") == 0;
    if (!s->plain && strcmp(s->format, "packed") != 0)
        return err_set(err, RC_INVALID, "--format '%.40s': packed or plain", s->format);
    return compress_parse(s->compression, &s->codec, err);
}
