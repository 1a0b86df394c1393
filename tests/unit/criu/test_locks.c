/* The reader of file locks, over images as CRIU 4.2.1 writes them. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/locks.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdint.h>
#include <string.h>

/* Add a message to an image that begins with CRIU's two magic numbers. */
static void write_image(int dir, const char *name, uint32_t magic, const uint8_t *messages[],
                        const size_t *lengths, size_t n)
{
    uint8_t bytes[512];
    uint32_t head[2] = {0x54564319, magic};
    size_t at = sizeof(head);
    struct err err = ERR_INIT;
    memcpy(bytes, head, sizeof(head));
    for (size_t i = 0; i < n; i++) {
        uint32_t len = (uint32_t)lengths[i];
        memcpy(bytes + at, &len, sizeof(len));
        memcpy(bytes + at + sizeof(len), messages[i], lengths[i]);
        at += sizeof(len) + lengths[i];
    }
    CHECK_OK(fs_write_whole(dir, name, bytes, at, 0600, &err));
}

/* Process 301: descriptor 3 is /lock; its locks are those of `locks`. */
static int make(const uint8_t *locks[], const size_t *lengths, size_t n)
{
    static const uint8_t ids[] = {0x08, 1, 0x10, 1, 0x18, 2, 0x20, 1, 0x28, 1};
    static const uint8_t fd[] = {0x08, 7, 0x10, 0, 0x18, 1, 0x20, 3};
    static const uint8_t file[] = {0x08, 1,    0x10, 7,   0x1a, 0x0b, 0x08, 7,  0x10,
                                   0,    0x32, 0x05, '/', 'l',  'o',  'c',  'k'};
    const uint8_t *one[1];
    size_t len[1];
    int dir = -1;
    struct err err = ERR_INIT;
    CHECK_OK(fs_private_dir(&dir, &err));
    one[0] = ids, len[0] = sizeof(ids);
    write_image(dir, "ids-301.img", 0x54432030, one, len, 1);
    one[0] = fd, len[0] = sizeof(fd);
    write_image(dir, "fdinfo-2.img", 0x56213732, one, len, 1);
    one[0] = file, len[0] = sizeof(file);
    write_image(dir, "files.img", 0x56303138, one, len, 1);
    if (n)
        write_image(dir, "filelocks.img", 0x54323616, locks, lengths, n);
    return dir;
}

static const uint8_t whole_flock[] = {0x08, 2, 0x10, 1, 0x18, 0xad, 0x02,
                                      0x20, 3, 0x28, 0, 0x30, 0};
static const uint8_t record[] = {0x08, 1, 0x10, 0, 0x18, 0xad, 0x02, 0x20, 3, 0x28, 10, 0x30, 20};
static const uint8_t lease[] = {0x08, 32, 0x10, 0, 0x18, 0xad, 0x02, 0x20, 3, 0x28, 0, 0x30, 0};
static const uint8_t stranger[] = {0x08, 2, 0x10, 1, 0x18, 9, 0x20, 3, 0x28, 0, 0x30, 0};
static const uint8_t broken[] = {0x08, 2, 0x12, 200};

TEST(locks_come_with_path_kind_and_range)
{
    const uint8_t *all[] = {whole_flock, record, lease};
    size_t lengths[] = {sizeof(whole_flock), sizeof(record), sizeof(lease)}, n = 0;
    CLEANUP(fd_closep) int dir = make(all, lengths, 3);
    struct cr_lock *locks = NULL;
    struct err err = ERR_INIT;
    CHECK_OK(cr_locks_load(dir, &locks, &n, &err));
    CHECK_INT(n, 2);
    CHECK_STR(locks[0].path, "/lock");
    CHECK(locks[0].flock && locks[0].write);
    CHECK(!locks[1].flock && !locks[1].write && locks[1].start == 10 && locks[1].len == 20);
    cr_locks_free(locks, n);
}

TEST(a_tree_without_locks_has_none)
{
    CLEANUP(fd_closep) int dir = make(NULL, NULL, 0);
    struct cr_lock *locks = NULL;
    size_t n = 1;
    struct err err = ERR_INIT;
    CHECK_OK(cr_locks_load(dir, &locks, &n, &err));
    CHECK_INT(n, 0);
    cr_locks_free(locks, n);
}

TEST(locks_of_no_process_and_broken_ones_are_corrupt)
{
    const uint8_t *bad[] = {stranger, broken};
    size_t lengths[] = {sizeof(stranger), sizeof(broken)};
    for (size_t i = 0; i < 2; i++) {
        CLEANUP(fd_closep) int dir = make(&bad[i], &lengths[i], 1);
        struct cr_lock *locks = NULL;
        size_t n = 0;
        struct err err = ERR_INIT;
        CHECK_INT(cr_locks_load(dir, &locks, &n, &err), RC_CORRUPT);
        CHECK(strstr(err.msg, "filelocks.img") != NULL && locks == NULL);
    }
}
