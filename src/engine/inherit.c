#include "engine/inherit.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/stdio.h"
#include "engine/container.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define NET_PATH "ns/net"

static void add(struct inherit *i, const char *key, int fd)
{
    for (size_t k = 0; k < i->n; k++)
        if (strcmp(i->key[k], key) == 0)
            return;
    i->key[i->n] = mem_strdup(key);
    i->fd[i->n++] = fd;
}

static void find_ours(const struct metadata *m, const int streams[3], struct inherit *i)
{
    for (int k = 0; k < 3; k++) {
        i->tty = i->tty || m->streams[k] == METADATA_STREAM_TTY;
        if (m->streams[k] == METADATA_STREAM_PIPE && streams[k] >= 0)
            add(i, m->stream_key[k], streams[k]);
    }
}

static enum rc find_theirs(int images, const int streams[3], struct inherit *i, struct err *err)
{
    struct cr_stdio stdio;
    enum rc rc = cr_stdio_load(images, &stdio, err);
    for (int k = 0; !rc && k < 3; k++) {
        i->tty = i->tty || stdio.kind[k] == CR_STREAM_TTY;
        CLEANUP(mem_freep) char *key = mem_asprintf("pipe:[%u]", stdio.pipe[k]);
        if (stdio.kind[k] == CR_STREAM_PIPE && streams[k] >= 0)
            add(i, key, streams[k]);
    }
    return rc;
}

enum rc inherit_find(const struct metadata *m, int images, const int streams[3], int task,
                     struct inherit *out, struct err *err)
{
    CLEANUP(inherit_done) struct inherit i = INHERIT_INIT;
    if (m->ours) {
        find_ours(m, streams, &i);
    } else {
        enum rc rc = find_theirs(images, streams, &i, err);
        if (rc)
            return rc;
    }
    if (m->container || !m->ours) { /* its network is what there is here */
        i.net = sys_openat(task, NET_PATH, O_RDONLY, 0);
        if (i.net < 0)
            return err_sys(err, "open '%s'", NET_PATH);
        add(&i, CONTAINER_NET_KEY, i.net);
    }
    *out = i;
    i = (struct inherit)INHERIT_INIT;
    return RC_OK;
}

void inherit_done(struct inherit *i)
{
    for (size_t k = 0; k < i->n; k++)
        free(i->key[k]);
    fd_closep(&i->net);
    *i = (struct inherit)INHERIT_INIT;
}
