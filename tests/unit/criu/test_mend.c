#include "base/buf.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/mend.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>

static int open_dir(void)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

static void add_entry(struct buf *image, const uint8_t *entry, uint32_t len)
{
    buf_add(image, &len, 4);
    buf_add(image, entry, len);
}

/* type 17, id 7, a timerfd { id 7, ticks, vsec 0, vnsec, isec 0, insec 10 ms } and a field of a
 * newer CRIU that must survive. */
static void add_timer(struct buf *image, uint8_t ticks, uint8_t vnsec)
{
    uint8_t entry[] = {8,  17,    16, 7, 98, 18,   8,    7,    40,   ticks, 56,   0,
                       64, vnsec, 72, 0, 80, 0x80, 0xad, 0xe2, 0x04, 0xa0,  0x06, 5};
    add_entry(image, entry, sizeof(entry));
}

static size_t mend(int dir, struct buf *image)
{
    struct err err = ERR_INIT;
    size_t mended = 99;
    CHECK_OK(fs_write_whole(dir, "files.img", image->data, image->len, 0600, &err));
    CHECK_OK(cr_mend(dir, &mended, &err));
    buf_done(image);
    CHECK_OK(fs_read_file(dir, "files.img", 4096, image, &err));
    return mended;
}

TEST(an_expired_periodic_timer_gets_its_period_and_nothing_else_changes)
{
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf image = BUF_INIT;
    CLEANUP(buf_done) struct buf want = BUF_INIT;
    buf_add(&image, "MAGIC...", 8);
    add_timer(&image, 1, 5); /* running */
    add_timer(&image, 0, 0); /* disarmed on purpose */
    buf_adds(&want, buf_str(&image));
    size_t before = image.len;
    CHECK(mend(dir, &image) == 0 && image.len == before);
    add_timer(&image, 1, 0); /* expired, not read */
    CHECK(mend(dir, &image) == 1);
    CHECK(image.len == before + 4 + 24 + 3); /* 0 became 10000000, three bytes longer */
    CHECK(memcmp(image.data + image.len - 3, "\xa0\x06\x05", 3) == 0 ||
          memmem(image.data + before, image.len - before, "\xa0\x06\x05", 3));
    CHECK(mend(dir, &image) == 0);
}

TEST(what_is_no_image_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    size_t mended = 99;
    CHECK_OK(cr_mend(dir, &mended, &err)); /* none at all is fine */
    CHECK(mended == 0);
    static const char *const bad[] = {"", "short", "MAGIC...\x01", "MAGIC...\xff\xff\xff\x7f",
                                      "MAGIC...\x04\x01\x01\x01zzzz"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_OK(fs_write_whole(dir, "files.img", bad[i], strlen(bad[i]), 0600, &err));
        CHECK_RC(cr_mend(dir, &mended, &err), RC_CORRUPT);
    }
}

/* type 1, a regular file: id, flags, pos, size, all below 128, and its mode, which is not ours. */
static void add_file(struct buf *image, uint8_t id, uint8_t flags, uint8_t pos, uint8_t size)
{
    uint8_t entry[] = {8,   1,  16, id,  26,  16,  8,   id, 16,   flags, 24,
                       pos, 50, 4,  '/', 'l', 'o', 'g', 64, size, 80,    0x24};
    add_entry(image, entry, sizeof(entry));
}

struct log {
    int asked;
    uint64_t now;
};

static bool size_now(void *arg, const char *path, uint64_t was, uint64_t *out_bytes)
{
    struct log *l = arg;
    CHECK_STR(path, "/log");
    CHECK_INT(was, 10);
    l->asked++;
    *out_bytes = l->now;
    return l->now != was;
}

/* Position and size of the entry that add_file() has made. */
static void check_file(const struct buf *image, size_t number, uint8_t pos, uint8_t size)
{
    const char *entry = image->data + 8 + number * 26 + 4;
    CHECK_INT(entry[11], pos);
    CHECK_INT(entry[19], size);
}

TEST(only_what_was_written_at_its_end_may_change_its_size)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    CLEANUP(buf_done) struct buf image = BUF_INIT;
    struct log log = {.now = 99};
    buf_add(&image, "MAGIC...", 8);
    add_file(&image, 1, O_WRONLY, 10, 10); /* a log */
    add_file(&image, 2, O_WRONLY, 4, 10);  /* written somewhere inside */
    add_file(&image, 3, O_RDWR, 10, 10);
    add_file(&image, 4, O_RDONLY, 10, 10);
    add_file(&image, 5, O_WRONLY, 10, 10); /* deleted */
    CHECK_OK(fs_write_whole(dir, "files.img", image.data, image.len, 0600, &err));
    static const uint8_t remap[] = {0x19, 0x43, 0x56, 0x54, 1, 2, 3, 4, 4, 0, 0, 0, 8, 5, 16, 1};
    CHECK_OK(fs_write_whole(dir, "remap-fpath.img", remap, sizeof(remap), 0600, &err));
    CHECK_OK(cr_follow_logs(dir, size_now, &log, &err));
    CHECK_INT(log.asked, 1);
    buf_done(&image);
    CHECK_OK(fs_read_file(dir, "files.img", 4096, &image, &err));
    check_file(&image, 0, 99, 99);
    check_file(&image, 1, 4, 10);
    for (size_t i = 2; i < 5; i++)
        check_file(&image, i, 10, 10);
}

TEST(a_list_of_deleted_files_that_makes_no_sense_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int dir = open_dir();
    struct log log = {.now = 99};
    CHECK_OK(cr_follow_logs(dir, size_now, &log, &err)); /* no images at all are fine */
    static const uint8_t remap[] = {0x19, 0x43, 0x56, 0x54, 1, 2, 3, 4, 4, 0, 0, 0, 8, 5, 18, 99};
    CHECK_OK(fs_write_whole(dir, "remap-fpath.img", remap, sizeof(remap), 0600, &err));
    CHECK_RC(cr_follow_logs(dir, size_now, &log, &err), RC_CORRUPT);
}
