#include "engine/container.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/mounts.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct list {
    char **item; /* NULL-terminated */
    size_t n;
};

static void add(struct list *l, char *text)
{
    l->item = mem_realloc(l->item, (l->n + 2) * sizeof(*l->item));
    l->item[l->n++] = text;
    l->item[l->n] = NULL;
}

/* A path that covers another one is in the list of mounts twice; CRIU wants to be told once. */
static void add_mount(struct list *l, const char *path)
{
    CLEANUP(mem_freep) char *text = mem_asprintf("mnt[%s]:%s", path, path);
    for (size_t i = 0; i < l->n; i++)
        if (strcmp(l->item[i], text) == 0)
            return;
    add(l, STEAL(text));
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

enum rc container_external(pid_t pid, const char *const *masked, char ***out, struct err *err)
{
    char path[48];
    struct list l = {NULL, 0};
    CLEANUP(mounts_done) struct mounts mounts = {0};
    (void)snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    CLEANUP(fd_closep) int task = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (task < 0)
        return err_sys(err, "open '%s'", path);
    enum rc rc = mounts_read(task, &mounts, err);
    for (size_t i = 0; !rc && i < mounts.n; i++)
        if (strcmp(mounts.list[i].target, "/") != 0)
            add_mount(&l, mounts.list[i].target);
    for (; !rc && masked && *masked; masked++)
        add_mount(&l, *masked);
    if (!rc)
        rc = add_network(pid, &l, err);
    if (rc) {
        container_external_freep(&l.item);
        return rc;
    }
    *out = l.item;
    return RC_OK;
}

void container_external_freep(char ***list)
{
    for (char **p = *list; p && *p; p++)
        free(*p);
    free(STEAL(*list));
}
