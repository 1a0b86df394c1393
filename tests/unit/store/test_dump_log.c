#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/dump_log.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int open_dir(void)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static void write_log(int dir, unsigned lines)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    for (unsigned i = 0; i < lines; i++)
        buf_addf(&text, "(00.%06u) vma %x-%x is dumped\n", i, i * 4096, i * 4096 + 4096);
    CHECK_OK(fs_write_whole(dir, DUMP_LOG_NAME, text.data, text.len, 0600, &err));
}

static bool is_there(int dir, const char *name)
{
    return faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

TEST(a_packed_log_has_the_same_text_and_is_small)
{
    struct err err = ERR_INIT;
    struct stat st;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf before = BUF_INIT;
    CLEANUP(buf_done) struct buf after = BUF_INIT;
    CHECK_RC(dump_log_read(dir, &before, &err), RC_NOT_FOUND);
    CHECK_OK(dump_log_pack(dir, &err)); /* there is none */
    write_log(dir, 2000);
    CHECK_OK(dump_log_read(dir, &before, &err));
    CHECK_OK(dump_log_pack(dir, &err));
    CHECK(!is_there(dir, DUMP_LOG_NAME) && fstatat(dir, DUMP_LOG_PACKED, &st, 0) == 0);
    CHECK((size_t)st.st_size < before.len / 4);
    CHECK_OK(dump_log_read(dir, &after, &err));
    CHECK(after.len == before.len && memcmp(after.data, before.data, after.len) == 0);
}

TEST(a_log_that_does_not_get_smaller_stays)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CHECK_OK(fs_write_whole(dir, DUMP_LOG_NAME, "x", 1, 0600, &err));
    CHECK_OK(dump_log_pack(dir, &err));
    CHECK(is_there(dir, DUMP_LOG_NAME) && !is_there(dir, DUMP_LOG_PACKED));
}

TEST(a_damaged_log_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf small = BUF_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    write_log(dir, 2000);
    CHECK_OK(dump_log_pack(dir, &err));
    CHECK_OK(fs_read_file(dir, DUMP_LOG_PACKED, DUMP_LOG_MAX, &small, &err));
    CHECK(unlinkat(dir, DUMP_LOG_PACKED, 0) == 0);
    CHECK_OK(fs_write_whole(dir, DUMP_LOG_PACKED, small.data, small.len / 2, 0600, &err));
    CHECK_RC(dump_log_read(dir, &text, &err), RC_CORRUPT);
    CHECK(unlinkat(dir, DUMP_LOG_PACKED, 0) == 0);
    CHECK_OK(fs_write_whole(dir, DUMP_LOG_PACKED, "no frame at all", 15, 0600, &err));
    CHECK_RC(dump_log_read(dir, &text, &err), RC_CORRUPT);
    CHECK(unlinkat(dir, DUMP_LOG_PACKED, 0) == 0);
    static const char huge[] = "\x28\xb5\x2f\xfd\xe0\xff\xff\xff\xff\xff\xff\xff\x0f";
    CHECK_OK(fs_write_whole(dir, DUMP_LOG_PACKED, huge, sizeof(huge) - 1, 0600, &err));
    CHECK_RC(dump_log_read(dir, &text, &err), RC_TOO_BIG);
    CHECK_INT(text.len, 0);
}
