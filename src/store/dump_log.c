#include "store/dump_log.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/compress.h"

#include <stdint.h>

enum rc dump_log_pack(int dirfd, struct err *err)
{
    CLEANUP(buf_done) struct buf text = {.max = DUMP_LOG_MAX};
    size_t len = 0;
    enum rc rc = fs_read_file(dirfd, DUMP_LOG_NAME, DUMP_LOG_MAX, &text, err);
    if (rc == RC_NOT_FOUND || rc == RC_TOO_BIG)
        return RC_OK;
    if (rc)
        return rc;
    CLEANUP(mem_freep) void *small = mem_alloc(compress_bound(text.len));
    if (compress_well(text.data, text.len, small, &len) != COMPRESS_ZSTD)
        return RC_OK;
    rc = fs_write_atomic(dirfd, DUMP_LOG_PACKED, small, len, 0600, err);
    if (!rc && sys_unlinkat(dirfd, DUMP_LOG_NAME, 0) < 0)
        rc = err_sys(err, "remove '" DUMP_LOG_NAME "'");
    return rc;
}

enum rc dump_log_read(int dirfd, struct buf *out, struct err *err)
{
    CLEANUP(buf_done) struct buf small = {.max = DUMP_LOG_MAX};
    uint64_t len = 0;
    enum rc rc = fs_read_file(dirfd, DUMP_LOG_PACKED, DUMP_LOG_MAX, &small, err);
    if (rc == RC_NOT_FOUND) {
        out->max = DUMP_LOG_MAX;
        return fs_read_file(dirfd, DUMP_LOG_NAME, DUMP_LOG_MAX, out, err);
    }
    if (rc)
        return rc;
    if (!compress_frame_size(small.data, small.len, &len))
        return err_set(err, RC_CORRUPT, "'" DUMP_LOG_PACKED "' is damaged");
    if (len > DUMP_LOG_MAX)
        return err_set(err, RC_TOO_BIG, "'" DUMP_LOG_PACKED "' holds %ju bytes", (uintmax_t)len);
    CLEANUP(mem_freep) char *text = mem_alloc((size_t)len + 1);
    rc = compress_expand(COMPRESS_ZSTD, small.data, small.len, text, (size_t)len, err);
    if (rc)
        return err_ctx(err, rc, "'" DUMP_LOG_PACKED "'");
    out->max = DUMP_LOG_MAX;
    buf_add(out, text, (size_t)len);
    return RC_OK;
}
