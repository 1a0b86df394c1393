#include "entrypoint/marker.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "entrypoint/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RESTORED_PID "/tmp/restored.pid"

enum rc marker_write(const struct settings *s, struct err *err)
{
    static const char text[] = "restored";
    struct err why = ERR_INIT;
    enum rc rc = fs_write_whole(AT_FDCWD, s->marker, text, sizeof(text) - 1, 0644, &why);
    if (!rc)
        return RC_OK;
    if (getenv("DYN_RESTORE_MARKER_FILE"))
        return err_set(err, rc, "restore marker: %s", why.msg);
    log_warn("No restore marker", "path", s->marker, "reason", why.msg, NULL);
    return RC_OK;
}

void marker_write_pid(pid_t pid)
{
    CLEANUP(mem_freep) char *text = mem_asprintf("%d\n", (int)pid);
    (void)!fs_write_whole(AT_FDCWD, RESTORED_PID, text, strlen(text), 0644, NULL);
}

void marker_remove(const struct settings *s)
{
    (void)unlink(s->marker);
    (void)unlink(RESTORED_PID);
}
