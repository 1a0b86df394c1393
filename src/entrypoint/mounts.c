#include "entrypoint/mounts.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"
#include "container/mounts.h"
#include "entrypoint/ctk_hook.h"
#include "entrypoint/log.h"
#include "store/dump_log.h"
#include "store/store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MOUNTINFO_MAX ((size_t)16 << 20)
#define LIST_MAX 65536

/* What container runtimes mask when nothing else is said. */
static const char *const masked[] = {"/proc/bus",
                                     "/proc/fs",
                                     "/proc/irq",
                                     "/proc/sys",
                                     "/proc/sysrq-trigger",
                                     "/proc/acpi",
                                     "/proc/kcore",
                                     "/proc/keys",
                                     "/proc/latency_stats",
                                     "/proc/timer_list",
                                     "/proc/scsi",
                                     "/proc/interrupts",
                                     "/proc/asound",
                                     "/sys/firmware",
                                     "/sys/devices/virtual/powercap"};

struct list {
    size_t n, cap;
    char **item;
};

static void list_done(struct list *l)
{
    mounts_freep(&l->item);
}

static void add(struct list *l, char *text)
{
    if (l->n + 1 >= l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->item = mem_realloc(l->item, l->cap * sizeof(*l->item));
    }
    l->item[l->n++] = text;
    l->item[l->n] = NULL;
}

/* Unless the path is mapped already. */
static void add_mount(struct list *l, const char *path)
{
    CLEANUP(mem_freep) char *text = mem_asprintf("mnt[%s]:%s", path, path);
    size_t key = strlen(path) + sizeof("mnt[]:") - 1;
    for (size_t i = 0; i < l->n; i++)
        if (strncmp(l->item[i], text, key) == 0)
            return;
    add(l, STEAL(text));
}

/* ---- what the checkpoint says ---- */

static bool is_absolute(const char *path)
{
    return path && path[0] == '/' && path[1] && !strstr(path, "/../");
}

/* Each member of a list, or, where they are objects, its `key`; how many there were. */
static enum rc add_paths(struct list *l, yyjson_val *list, const char *key, size_t *out_n,
                         struct err *err)
{
    yyjson_val *v;
    size_t i, max;
    *out_n = 0;
    if (yyjson_arr_size(list) > LIST_MAX)
        return err_set(err, RC_CORRUPT, METADATA_NAME ": more than %d mounts", LIST_MAX);
    yyjson_arr_foreach(list, i, max, v)
    {
        const char *path = key ? json_str(v, key, NULL) : yyjson_get_str(v);
        if (path && strcmp(path, "/") == 0)
            continue;
        if (!is_absolute(path))
            return err_set(err, RC_CORRUPT, METADATA_NAME ": a mount at no absolute path");
        add_mount(l, path);
        ++*out_n;
    }
    return RC_OK;
}

static enum rc add_recorded(struct list *l, const char *metadata, size_t len, struct err *err)
{
    static const struct {
        const char *list, *key;
    } lists[] = {{"masked_paths", NULL},
                 {"readonly_paths", NULL},
                 {"bind_mount_dests", NULL},
                 {"mounts", "container_path"}};
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse(METADATA_NAME, metadata, len, &doc, err);
    size_t n[ARRAY_LEN(lists)] = {0};
    for (size_t i = 0; !rc && i < ARRAY_LEN(lists); i++)
        rc = add_paths(l, yyjson_obj_get(yyjson_doc_get_root(doc), lists[i].list), lists[i].key,
                       &n[i], err);
    for (size_t i = 0; !rc && n[0] == 0 && i < ARRAY_LEN(masked); i++)
        add_mount(l, masked[i]);
    return rc;
}

enum rc mounts_map(const struct mounts *now, const char *metadata, size_t len, const char *hook,
                   char ***out, struct err *err)
{
    CLEANUP(list_done) struct list l = {.n = 0};
    add(&l, mem_strdup("mnt[/]:."));
    if (hook) /* first: the old path may be among the recorded ones, too */
        add(&l, mem_strdup(hook));
    for (size_t i = 0; i < now->n; i++)
        if (strcmp(now->list[i].target, "/") != 0)
            add_mount(&l, now->list[i].target);
    enum rc rc = add_recorded(&l, metadata, len, err);
    if (!rc)
        *out = STEAL(l.item);
    return rc;
}

/* ---- the toolkit's mount ---- */

/* It is at another path in each container. */
static enum rc map_hook(const struct store_entry *entry, const char *mountinfo,
                        const struct buf *metadata, char **out, struct err *err)
{
    CLEANUP(buf_done) struct buf log = BUF_INIT;
    CLEANUP(mem_freep) char *new_path = ctk_hook_new(mountinfo);
    *out = NULL;
    if (!new_path)
        return RC_OK;
    (void)!dump_log_read(store_entry_fd(entry), &log, NULL);
    CLEANUP(mem_freep)
    char *old_path = ctk_hook_old(buf_str(&log), metadata->data, metadata->len);
    if (!old_path || strcmp(old_path, new_path) == 0)
        return RC_OK;
    enum rc rc = ctk_hook_map("", old_path, new_path, out, err);
    if (rc)
        return rc;
    log_info("Created nvidia-ctk-hook symlink for CRIU mount remapping", "old", old_path, "new",
             new_path, NULL);
    return RC_OK;
}

/* ---- all ---- */

static bool is_mounted(const struct mounts *now, const char *path)
{
    for (size_t i = 0; i < now->n; i++)
        if (strcmp(now->list[i].target, path) == 0)
            return true;
    return false;
}

/* A volume that only the original had becomes a plain directory. */
static enum rc make_missing(const struct mounts *now, const char *metadata, size_t len,
                            struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse(METADATA_NAME, metadata, len, &doc, err);
    yyjson_val *list = yyjson_obj_get(yyjson_doc_get_root(doc), "mounts"), *v;
    size_t i, max;
    yyjson_arr_foreach(list, i, max, v)
    {
        const char *path = json_str(v, "container_path", "/");
        struct stat st;
        if (!is_absolute(path) || is_mounted(now, path) || lstat(path, &st) == 0 || errno != ENOENT)
            continue;
        log_warn("A volume of the original is not mounted here: an empty directory takes its place",
                 "path", path, NULL);
        if (!rc)
            rc = fs_mkdirs(path, 0755, err);
    }
    return rc;
}

static enum rc read_own(struct buf *text, struct mounts *out, struct err *err)
{
    enum rc rc = fs_read_file(AT_FDCWD, "/proc/1/mountinfo", MOUNTINFO_MAX, text, err);
    return rc ? rc : mounts_parse(buf_str(text), text->len, out, err);
}

enum rc mounts_make_missing(const char *metadata, size_t len, struct err *err)
{
    CLEANUP(mounts_done) struct mounts now = {.n = 0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = read_own(&text, &now, err);
    return rc ? rc : make_missing(&now, metadata, len, err);
}

enum rc mounts_external(const struct store_entry *entry, char ***out, struct err *err)
{
    const struct metadata *m = store_entry_metadata(entry);
    CLEANUP(mounts_done) struct mounts now = {.n = 0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(buf_done) struct buf metadata = BUF_INIT;
    CLEANUP(mem_freep) char *hook = NULL;
    CLEANUP(mounts_freep) char **map = NULL;
    if (m->ours && !m->container) {
        *out = NULL;
        return RC_OK;
    }
    enum rc rc = read_own(&text, &now, err);
    if (!rc)
        rc = fs_read_file(store_entry_fd(entry), METADATA_NAME, METADATA_MAX, &metadata, err);
    if (!rc)
        rc = map_hook(entry, buf_str(&text), &metadata, &hook, err);
    if (!rc)
        rc = mounts_map(&now, metadata.data, metadata.len, hook, &map, err);
    if (!rc)
        rc = make_missing(&now, metadata.data, metadata.len, err);
    if (rc)
        return rc;
    *out = STEAL(map);
    return RC_OK;
}

void mounts_freep(char ***list)
{
    for (char **p = *list; p && *p; p++)
        free(*p);
    free(*list);
    *list = NULL;
}
