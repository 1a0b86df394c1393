#include "entrypoint/criu_conf.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"

#include <fcntl.h>
#include <inttypes.h>

enum rc criu_conf_write(const struct settings *s, char **out_path, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/restore-criu.conf", s->work_dir);
    buf_adds(&text, "enable-external-masters\n");
    if (s->has_cuda_plugin)
        buf_addf(&text, "libdir %s\n", s->cuda_plugin_dir);
    buf_adds(&text, "tcp-close\nlink-remap\n");
    if (s->timeout_s)
        buf_addf(&text, "timeout %" PRIu64 "\n", s->timeout_s);
    if (s->has_cuda_plugin)
        buf_adds(&text, "allow-uprobes\n");
    if (s->skip_in_flight)
        buf_adds(&text, "skip-in-flight\n");
    enum rc rc = fs_write_whole(AT_FDCWD, path, text.data, text.len, 0644, err);
    if (rc)
        return err_ctx(err, rc, "configuration of CRIU");
    *out_path = STEAL(path);
    return RC_OK;
}
