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
