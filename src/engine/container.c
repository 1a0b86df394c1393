#include "engine/container.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/place.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static enum rc read_mounts(pid_t pid, struct mounts *out, struct err *err)
{
    char path[48];
    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    CLEANUP(fd_closep) int task = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    return task < 0 ? err_sys(err, "open '%s'", path) : mounts_read(task, out, err);
}

/* ---- what is external ---- */

struct list {
    char **item; /* NULL-terminated */
    size_t n;
};

/* A path that covers another one is in the list of mounts twice; CRIU wants to be told once. */
static void add(struct list *l, char *text)
{
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->item[i], text) == 0) {
            free(text);
            return;
        }
    l->item = mem_realloc(l->item, (l->n + 2) * sizeof(*l->item));
    l->item[l->n++] = text;
    l->item[l->n] = NULL;
}

static void add_paths(struct list *l, const char *const *paths)
{
    for (; paths && *paths; paths++)
        add(l, mem_asprintf("mnt[%s]:%s", *paths, *paths));
}

static enum rc add_network(pid_t pid, struct list *l, struct err *err)
{
    char path[48];
    struct stat st;
    (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)pid);
    if (stat(path, &st) < 0)
        return err_sys(err, "the container's network namespace");
    add(l, mem_asprintf("net[%ju]:" CONTAINER_NET_KEY, (uintmax_t)st.st_ino));
    return RC_OK;
}

enum rc container_external(pid_t pid, const struct engine_container *c, char ***out,
                           struct err *err)
{
    struct list l = {NULL, 0};
    CLEANUP(mounts_done) struct mounts mounts = {0};
    enum rc rc = read_mounts(pid, &mounts, err);
    if (!rc)
        rc = add_network(pid, &l, err);
    for (size_t i = 0; !rc && i < mounts.n; i++) {
        const char *target = mounts.list[i].target;
        if (strcmp(target, "/") != 0)
            add(&l, mem_asprintf("mnt[%s]:%s", target, target));
    }
    if (rc) {
        container_external_freep(&l.item);
        return rc;
    }
    add_paths(&l, c->masked_paths);
    add_paths(&l, c->readonly_paths);
    for (const char *const *x = c->external; x && *x; x++)
        add(&l, mem_strdup(*x));
    *out = l.item;
    return RC_OK;
}

void container_external_freep(char ***list)
{
    for (char **p = *list; p && *p; p++)
        free(*p);
    free(STEAL(*list));
}

static void add_place(struct list *l, const char *path)
{
    if (path && path[0] == '/' && path[1] && !strstr(path, "/../"))
        add(l, mem_asprintf("mnt[%s]:" PLACE_ALL "%s", path, path));
}

static void add_places(struct list *l, char *const *paths)
{
    for (; paths && *paths; paths++)
        add_place(l, *paths);
}

enum rc container_external_here(int task, const struct metadata *m, char ***out, struct err *err)
{
    struct list l = {NULL, 0};
    CLEANUP(mounts_done) struct mounts mounts = {0};
    enum rc rc = mounts_read(task, &mounts, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < mounts.n; i++)
        add_place(&l, mounts.list[i].target);
    add_places(&l, m->place.masked_paths);
    add_places(&l, m->place.readonly_paths);
    add_places(&l, m->place.bind_mount_dests);
    for (size_t i = 0; i < m->place.n_mounts; i++)
        add_place(&l, m->place.mounts[i].container_path);
    *out = l.item;
    return RC_OK;
}

/* ---- what is told ---- */

static bool is_one_of(const char *text, const char *const *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(text, list[i]) == 0)
            return true;
    return false;
}

/* What the runtime was told to mount there; NULL: nothing. */
static const struct engine_oci_mount *oci_mount_at(const struct engine_container *c,
                                                   const char *path)
{
    for (size_t i = 0; i < c->n_mounts; i++)
        if (strcmp(c->mounts[i].destination, path) == 0)
            return &c->mounts[i];
    return NULL;
}

/* A volume that the kubelet keeps in memory is, in the table of mounts, any tmpfs; the runtime was
 * told where it comes from. */
static bool is_pods(const struct engine_oci_mount *o)
{
    return o && o->source && strstr(o->source, "/kubelet/pods/");
}

/* Whether a mount is a volume, by the contract's rule, or one that this rule would miss. */
static bool is_volume(const struct mount *m, const struct engine_oci_mount *o)
{
    static const char *const types[] = {"proc",     "sysfs",     "devpts",  "mqueue",
                                        "tmpfs",    "cgroup",    "cgroup2", "securityfs",
                                        "debugfs",  "tracefs",   "fusectl", "configfs",
                                        "devtmpfs", "hugetlbfs", "pstore",  "bpf"};
    static const char *const paths[] = {"/",           "/proc",    "/sys",
                                        "/dev",        "/dev/pts", "/dev/shm",
                                        "/dev/mqueue", "/run",     "/run/secrets"};
    static const char *const marks[] = {"/kubelet/pods/", "/kubernetes.io~",
                                        "/containerd/io.containerd"};
    bool marked = false;
    for (size_t i = 0; i < ARRAY_LEN(marks); i++)
        marked = marked || strstr(m->root, marks[i]) || strstr(m->source, marks[i]);
    /* A bind of a file on a tmpfs is the tmpfs's type, and yet a volume. */
    bool fresh = is_one_of(m->type, types, ARRAY_LEN(types)) && strcmp(m->root, "/") == 0;
    return ((marked && !fresh) || is_pods(o)) && !is_one_of(m->target, paths, ARRAY_LEN(paths)) &&
           strncmp(m->target, "/sys/", 5) != 0 && strncmp(m->target, "/proc/", 6) != 0;
}

#define VOLUME_MARK "kubernetes.io~"

/* ".../kubernetes.io~TYPE/NAME..." */
static void describe_volume(const char *path, struct metadata_mount *out)
{
    static const struct {
        const char *element, *type;
    } types[] = {{"empty-dir", "emptyDir"},
                 {"configmap", "configMap"},
                 {"secret", "secret"},
                 {"projected", "projected"},
                 {"downward-api", "downwardAPI"},
                 {"persistentvolumeclaim", "persistentVolumeClaim"},
                 {"hostpath", "hostPath"}};
    const char *at = strstr(path, VOLUME_MARK);
    const char *element = at ? at + sizeof(VOLUME_MARK) - 1 : "";
    size_t len = strcspn(element, "/");
    for (size_t i = 0; i < ARRAY_LEN(types); i++)
        if (strlen(types[i].element) == len && strncmp(types[i].element, element, len) == 0) {
            const char *name = element[len] ? element + len + 1 : "";
            out->volume_type = mem_strdup(types[i].type);
            out->volume_name = mem_asprintf("%.*s", (int)strcspn(name, "/"), name);
            return;
        }
    out->volume_type = mem_strdup("unknown");
    out->volume_name = mem_strdup("");
}

static void describe_oci(const struct engine_oci_mount *o, struct metadata_mount *m)
{
    if (!o)
        return;
    m->oci_source = mem_strdup(o->source);
    m->oci_type = mem_strdup(o->type);
    for (const char *const *x = o->options; x && *x; x++)
        metadata_list_add(&m->oci_options, *x);
}

void container_describe_mounts(const struct mounts *all, const struct engine_container *c,
                               struct metadata_place *out)
{
    out->mounts = mem_zalloc((all->n + 1) * sizeof(*out->mounts));
    for (size_t i = 0; i < all->n; i++) {
        const struct mount *m = &all->list[i];
        const struct engine_oci_mount *o = oci_mount_at(c, m->target);
        if (!is_volume(m, o))
            continue;
        const char *host = strcmp(m->root, "/") != 0 ? m->root : m->source;
        struct metadata_mount *d = &out->mounts[out->n_mounts++];
        *d = (struct metadata_mount){.container_path = mem_strdup(m->target),
                                     .host_path = mem_strdup(host),
                                     .fs_type = mem_strdup(m->type),
                                     .read_only = mounts_has_option(m->options, "ro")};
        describe_volume(is_pods(o) && !strstr(host, VOLUME_MARK) ? o->source : host, d);
        describe_oci(o, d);
    }
    for (size_t i = 0; i < c->n_mounts; i++)
        if (c->mounts[i].type && strcmp(c->mounts[i].type, "bind") == 0)
            metadata_list_add(&out->bind_mount_dests, c->mounts[i].destination);
    for (const char *const *x = c->masked_paths; x && *x; x++)
        metadata_list_add(&out->masked_paths, *x);
    for (const char *const *x = c->readonly_paths; x && *x; x++)
        metadata_list_add(&out->readonly_paths, *x);
}

static enum rc describe_namespaces(pid_t pid, struct metadata_place *out, struct err *err)
{
    static const char *const types[] = {"net", "pid", "mnt", "uts", "ipc", "user", "cgroup"};
    out->namespaces = mem_zalloc(ARRAY_LEN(types) * sizeof(*out->namespaces));
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        char path[48];
        struct stat st, host = {0};
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/%s", (int)pid, types[i]);
        if (stat(path, &st) < 0)
            return err_sys(err, "the container's %s namespace", types[i]);
        (void)snprintf(path, sizeof(path), "/proc/1/ns/%s", types[i]);
        if (stat(path, &host) < 0) { /* an init with more rights than ours keeps them to itself */
            (void)snprintf(path, sizeof(path), "/proc/self/ns/%s", types[i]);
            if (stat(path, &host) < 0)
                return err_sys(err, "our %s namespace", types[i]);
        }
        out->namespaces[out->n_namespaces++] =
            (struct metadata_namespace){mem_strdup(types[i]), st.st_ino, host.st_ino != st.st_ino};
    }
    return RC_OK;
}

static void set(char **to, const char *from)
{
    if (!from)
        return;
    free(*to);
    *to = mem_strdup(from);
}

enum rc container_describe(pid_t pid, const struct engine_container *c, struct metadata *m,
                           struct err *err)
{
    CLEANUP(mounts_done) struct mounts mounts = {0};
    set(&m->source_node, c->node);
    set(&m->source_pod_ip, c->pod_ip);
    set(&m->container_id, c->container_id);
    set(&m->pod_name, c->pod_name);
    set(&m->pod_namespace, c->pod_namespace);
    set(&m->image, c->image);
    m->container = true;
    enum rc rc = read_mounts(pid, &mounts, err);
    if (rc)
        return rc;
    container_describe_mounts(&mounts, c, &m->place);
    return describe_namespaces(pid, &m->place, err);
}
