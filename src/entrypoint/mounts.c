#include "entrypoint/mounts.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "entrypoint/ctk_hook.h"
#include "entrypoint/log.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DUMP_LOG_MAX ((size_t)256 << 20)
#define MOUNTS_MAX ((size_t)16 << 20)

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

static void add(struct list *l, char *text)
{
    if (l->n + 1 >= l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->item = mem_realloc(l->item, l->cap * sizeof(*l->item));
    }
    l->item[l->n++] = text;
    l->item[l->n] = NULL;
}

static void add_mount(struct list *l, const char *path)
{
    CLEANUP(mem_freep) char *text = mem_asprintf("mnt[%s]:%s", path, path);
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->item[i], text) == 0)
            return;
    add(l, STEAL(text));
}

/* The toolkit's mount is at another path in each container. */
static enum rc add_hook(const struct store_entry *entry, const char *mountinfo, struct list *l,
                        struct err *err)
{
    CLEANUP(buf_done) struct buf log = {.max = DUMP_LOG_MAX};
    CLEANUP(buf_done) struct buf metadata = BUF_INIT;
    CLEANUP(mem_freep) char *new_path = ctk_hook_new(mountinfo);
    if (!new_path)
        return RC_OK;
    (void)!fs_read_file(store_entry_fd(entry), "dump.log", DUMP_LOG_MAX, &log, NULL);
    (void)!fs_read_file(store_entry_fd(entry), METADATA_NAME, METADATA_MAX, &metadata, NULL);
    CLEANUP(mem_freep)
    char *old_path = ctk_hook_old(buf_str(&log), buf_str(&metadata), metadata.len);
    if (!old_path || strcmp(old_path, new_path) == 0)
        return RC_OK;
    char *external = NULL;
    enum rc rc = ctk_hook_map("", old_path, new_path, &external, err);
    if (rc)
        return rc;
    add(l, external);
    log_info("Created nvidia-ctk-hook symlink for CRIU mount remapping", "old", old_path, "new",
             new_path, NULL);
    return RC_OK;
}

enum rc mounts_external(const struct store_entry *entry, char ***out, struct err *err)
{
    struct list l = {0};
    const struct metadata *m = store_entry_metadata(entry);
    if (m->ours && !m->container) {
        *out = NULL;
        return RC_OK;
    }
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = fs_read_file(AT_FDCWD, "/proc/1/mountinfo", MOUNTS_MAX, &text, err);
    if (rc)
        return rc;
    add(&l, mem_strdup("mnt[/]:."));
    rc = add_hook(entry, text.data, &l, err);
    if (rc) {
        mounts_freep(&l.item);
        return rc;
    }
    char *save = NULL;
    for (char *line = strtok_r(text.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        int at = 0, end = 0;
        if (sscanf(line, "%*d %*d %*s %*s %n%*s%n", &at, &end) < 0 || !end)
            continue;
        line[end] = '\0';
        if (strcmp(line + at, "/") != 0)
            add_mount(&l, line + at);
    }
    for (size_t i = 0; i < ARRAY_LEN(masked); i++)
        add_mount(&l, masked[i]);
    *out = l.item;
    return RC_OK;
}

void mounts_freep(char ***list)
{
    for (char **p = *list; p && *p; p++)
        free(*p);
    free(*list);
    *list = NULL;
}
