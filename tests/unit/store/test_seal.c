#include "base/mem.h"
#include "base/rand.h"
#include "base/sys.h"
#include "codec/hex.h"
#include "harness/test.h"
#include "store/seal.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static const uint8_t instance[SEAL_INSTANCE] = "one making", other[SEAL_INSTANCE] = "another one";
static const struct seal_label label = {instance, "web", "core-1.img"};

static struct domain *domain_of(char c)
{
    struct err err = ERR_INIT;
    struct domain *d = NULL;
    struct key_id id;
    uint8_t key[CIPHER_KEY];
    memset(key, c, sizeof(key));
    CHECK_OK(keyfile_data_id(key, &id, &err));
    CHECK_OK(domain_new(&id, key, &d, &err));
    return d;
}

static int file_of(const void *data, size_t len)
{
    int fd = memfd_create("file", MFD_CLOEXEC);
    CHECK(fd >= 0 && pwrite(fd, data, len, 0) == (ssize_t)len);
    return fd;
}

static int seal(const struct domain *d, const void *data, size_t len)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int from = file_of(data, len);
    int to = memfd_create("sealed", MFD_CLOEXEC);
    CHECK_OK(seal_write(d, &label, from, to, &err));
    return to;
}

static size_t length(int fd)
{
    return (size_t)lseek(fd, 0, SEEK_END);
}

TEST(files_of_every_length_come_back)
{
    struct err err = ERR_INIT;
    CLEANUP(domain_freep) struct domain *d = domain_of('d');
    static const size_t lengths[] = {
        0, 1, SEAL_SEGMENT - 1, SEAL_SEGMENT, SEAL_SEGMENT + 1, 3 * SEAL_SEGMENT};
    CLEANUP(mem_freep) uint8_t *data = mem_alloc(3 * SEAL_SEGMENT);
    rand_bytes(data, 3 * SEAL_SEGMENT);
    for (size_t i = 0; i < ARRAY_LEN(lengths); i++) {
        CLEANUP(buf_done) struct buf back = BUF_INIT;
        CLEANUP(fd_closep) int sealed = seal(d, data, lengths[i]);
        CLEANUP(fd_closep) int to = memfd_create("back", MFD_CLOEXEC);
        CHECK_OK(seal_read_bytes(d, &label, sealed, &back, &err));
        CHECK(back.len == lengths[i] && (!back.len || memcmp(back.data, data, back.len) == 0));
        CHECK_OK(seal_read(d, &label, sealed, to, &err));
        CHECK(length(to) == lengths[i]);
        size_t tags = lengths[i] / SEAL_SEGMENT + (lengths[i] % SEAL_SEGMENT || !lengths[i]);
        CHECK(length(sealed) == SEAL_HEADER + lengths[i] + 16 * tags);
    }
}

TEST(two_writings_of_one_file_have_nothing_in_common)
{
    CLEANUP(domain_freep) struct domain *d = domain_of('d');
    CLEANUP(fd_closep) int one = seal(d, "the same content", 16);
    CLEANUP(fd_closep) int two = seal(d, "the same content", 16);
    char a[96], b[96];
    CHECK(pread(one, a, 96, 0) == 96 && pread(two, b, 96, 0) == 96);
    CHECK(memcmp(a, b, 32) == 0); /* the header's fixed part */
    CHECK(memcmp(a + 32, b + 32, 24) != 0 && memcmp(a + 64, b + 64, 16) != 0);
    CHECK(!memmem(a, 96, "same", 4));
}

TEST(only_its_own_label_and_key_open_it)
{
    struct err err = ERR_INIT;
    CLEANUP(domain_freep) struct domain *d = domain_of('d');
    CLEANUP(domain_freep) struct domain *stranger = domain_of('s');
    CLEANUP(fd_closep) int sealed = seal(d, "content", 7);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    struct seal_label id = label, name = label, making = label;
    id.id = "wef";
    name.name = "core-2.img";
    making.instance = other;
    CHECK_RC(seal_read_bytes(stranger, &label, sealed, &out, &err), RC_CORRUPT);
    CHECK_RC(seal_read_bytes(d, &id, sealed, &out, &err), RC_CORRUPT);
    CHECK_RC(seal_read_bytes(d, &name, sealed, &out, &err), RC_CORRUPT);
    CHECK_RC(seal_read_bytes(d, &making, sealed, &out, &err), RC_CONFLICT);
    CHECK(out.len == 0);
    struct buf small = {.max = 6};
    CHECK_RC(seal_read_bytes(d, &label, sealed, &small, &err), RC_TOO_BIG);
    buf_done(&small);
}

TEST(changed_cut_or_continued_files_are_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(domain_freep) struct domain *d = domain_of('d');
    CLEANUP(fd_closep) int sealed = seal(d, "content", 7);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    char whole[87], bad[88] = {0};
    CHECK(length(sealed) == 87 && pread(sealed, whole, 87, 0) == 87);
    for (size_t bit = 0; bit < 87UL * 8; bit++) {
        memcpy(bad, whole, 87);
        bad[bit / 8] = (char)(bad[bit / 8] ^ (1 << bit % 8));
        CLEANUP(fd_closep) int fd = file_of(bad, 87);
        enum rc rc = seal_read_bytes(d, &label, fd, &out, &err);
        CHECK(rc == RC_CORRUPT || rc == RC_CONFLICT || rc == RC_UNSUPPORTED);
    }
    memcpy(bad, whole, 87);
    for (size_t n = 0; n <= 88; n++) {
        CLEANUP(fd_closep) int fd = file_of(bad, n);
        CHECK_RC(seal_read_bytes(d, &label, fd, &out, &err), n == 87 ? RC_OK : RC_CORRUPT);
    }
}

TEST(segments_cannot_be_exchanged)
{
    struct err err = ERR_INIT;
    CLEANUP(domain_freep) struct domain *d = domain_of('d');
    CLEANUP(mem_freep) uint8_t *data = mem_zalloc(2 * SEAL_SEGMENT);
    CLEANUP(fd_closep) int sealed = seal(d, data, 2 * SEAL_SEGMENT);
    size_t n = SEAL_SEGMENT + 16;
    CLEANUP(mem_freep) uint8_t *whole = mem_alloc(SEAL_HEADER + 3 * n);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CHECK(pread(sealed, whole, SEAL_HEADER + 2 * n, 0) == (ssize_t)(SEAL_HEADER + 2 * n));
    memcpy(whole + SEAL_HEADER + 2 * n, whole + SEAL_HEADER, n);
    memmove(whole + SEAL_HEADER, whole + SEAL_HEADER + n, 2 * n);
    CLEANUP(fd_closep) int fd = file_of(whole, SEAL_HEADER + 2 * n);
    CHECK_RC(seal_read_bytes(d, &label, fd, &out, &err), RC_CORRUPT);
}
