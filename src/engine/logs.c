#include "engine/logs.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/mend.h"
#include "engine/engine.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

struct follow {
    const struct engine *engine;
    int root;
};

static bool size_now(void *arg, const char *path, uint64_t was, uint64_t *out_bytes)
{
    const struct follow *f = arg;
    struct stat st;
    CLEANUP(fd_closep) int fd = sys_open_in_root(f->root, path, O_PATH, 0, 0);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size == was)
        return false;
    CLEANUP(mem_freep)
    char *text = mem_asprintf("'%s' had %" PRIu64 " bytes at the checkpoint and has %" PRIu64
                              " now: the program goes on writing at its end",
                              path, was, (uint64_t)st.st_size);
    if (f->engine->warn)
        f->engine->warn(f->engine->arg, text);
    *out_bytes = (uint64_t)st.st_size;
    return true;
}

enum rc logs_follow(const struct engine *e, int images, int root, struct err *err)
{
    struct follow f = {e, root};
    return cr_follow_logs(images, size_now, &f, err);
}
