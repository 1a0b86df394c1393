#include "base/mem.h"
#include "base/sys.h"
#include "codec/digest.h"
#include "harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* BLAKE3's published vectors for the empty input and for 0x00. */
TEST(known_vectors)
{
    struct digest d;
    char text[DIGEST_TEXT_LEN + 1];
    digest_of("", 0, &d);
    digest_format(&d, text);
    CHECK_STR(text, "blake3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262");
    digest_of("", 1, &d);
    digest_format(&d, text);
    CHECK_STR(text, "blake3:2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213");
}

TEST(text_is_exact)
{
    struct err err = ERR_INIT;
    struct digest d, back;
    char text[DIGEST_TEXT_LEN + 1];
    digest_of("x", 1, &d);
    digest_format(&d, text);
    CHECK_OK(digest_parse(text, DIGEST_TEXT_LEN, &back, &err));
    CHECK(digest_equal(&d, &back));
    CHECK_RC(digest_parse(text, DIGEST_TEXT_LEN - 1, &back, &err), RC_INVALID);
    text[20] = 'G';
    CHECK_RC(digest_parse(text, DIGEST_TEXT_LEN, &back, &err), RC_INVALID);
}

static int make_file(size_t size, unsigned char seed)
{
    int fd = sys_openat(AT_FDCWD, test_dir(), O_TMPFILE | O_RDWR, 0600);
    CHECK(fd >= 0);
    unsigned char block[4096];
    for (size_t at = 0; at < size; at += sizeof(block)) {
        memset(block, (int)(seed + at / sizeof(block)), sizeof(block));
        size_t n = size - at < sizeof(block) ? size - at : sizeof(block);
        CHECK(write(fd, block, n) == (ssize_t)n);
    }
    return fd;
}

TEST(threads_do_not_change_the_digest_but_every_byte_does)
{
    static const size_t sizes[] = {
        0, 1, 4096, DIGEST_SEGMENT - 1, DIGEST_SEGMENT, DIGEST_SEGMENT + 1, 3 * DIGEST_SEGMENT + 5};
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        CLEANUP(fd_closep) int fd = make_file(sizes[i], 1);
        struct digest one, many;
        uint64_t len = 0, done = 0;
        CHECK_OK(digest_file(fd, 1, NULL, &len, &one, &err));
        CHECK(len == sizes[i]);
        CHECK_OK(digest_file(fd, 7, &done, &len, &many, &err));
        CHECK(done == sizes[i] && digest_equal(&one, &many));
        if (sizes[i]) {
            CHECK(pwrite(fd, "?", 1, (off_t)sizes[i] - 1) == 1);
            CHECK_OK(digest_file(fd, 2, NULL, &len, &many, &err));
            CHECK(!digest_equal(&one, &many));
        }
    }
}

TEST(a_followed_file_gets_the_same_digest)
{
    struct err err = ERR_INIT;
    CLEANUP(fd_closep) int whole = make_file(5 * DIGEST_SEGMENT + 100, 3);
    CLEANUP(fd_closep) int growing = make_file(0, 0);
    struct digest want, got;
    uint64_t len = 0;
    struct digest_follow *f = NULL;
    CHECK_OK(digest_file(whole, 2, NULL, &len, &want, &err));
    CHECK_OK(digest_follow_start(growing, 2, &f, &err));
    CLEANUP(mem_freep) char *block = mem_alloc(1 << 20);
    for (off_t at = 0;;) {
        ssize_t n = pread(whole, block, 1 << 20, at);
        if (n <= 0)
            break;
        CHECK(write(growing, block, (size_t)n) == n);
        at += n;
        struct timespec pause = {0, 1000000};
        (void)nanosleep(&pause, NULL);
    }
    CHECK_OK(digest_follow_finish(f, &len, &got, &err));
    CHECK(len == 5 * DIGEST_SEGMENT + 100 && digest_equal(&want, &got));
}

TEST(parts_and_segments_give_the_digests_of_the_whole)
{
    struct err err = ERR_INIT;
    size_t size = 2 * DIGEST_SEGMENT + 12345;
    CLEANUP(fd_closep) int fd = make_file(size, 9);
    CLEANUP(mem_freep) unsigned char *data = mem_alloc(size);
    CHECK(pread(fd, data, size, 0) == (ssize_t)size);
    CLEANUP(digest_sum_freep) struct digest_sum *sum = digest_sum_new();
    struct digest segments[3], want, got;
    uint64_t len = 0;
    for (size_t at = 0, i = 0; at < size; i++) {
        size_t n = size - at < DIGEST_SEGMENT ? size - at : DIGEST_SEGMENT;
        digest_sum_add(sum, data + at, n / 3);
        digest_sum_add(sum, data + at + n / 3, n - n / 3);
        digest_sum_take(sum, &segments[i]);
        digest_of(data + at, n, &want);
        CHECK(digest_equal(&segments[i], &want));
        at += n;
    }
    CHECK_OK(digest_file(fd, 2, NULL, &len, &want, &err));
    digest_of_segments(segments, size, &got);
    CHECK(digest_equal(&got, &want));
    digest_file_bytes("", 0, &want);
    digest_of_segments(NULL, 0, &got);
    CHECK(digest_equal(&got, &want));
}

TEST(a_digest_that_is_given_up_is_none)
{
    struct err err = ERR_INIT;
    CLEANUP(cancel_done) struct cancel c = CANCEL_INIT;
    struct digest d = {{7}};
    uint64_t len = 77;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/file", test_dir());
    CLEANUP(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && ftruncate(fd, (off_t)(3 * DIGEST_SEGMENT)) == 0);
    CHECK_OK(cancel_init(&c, &err));
    cancel_ask(&c);
    for (unsigned threads = 1; threads <= 3; threads += 2)
        CHECK_RC(digest_file_until(fd, threads, NULL, &c, &len, &d, &err), RC_CANCELLED);
    CHECK(len == 77 && d.bytes[0] == 7);
    CHECK_OK(digest_file_until(fd, 1, NULL, NULL, &len, &d, &err));
    CHECK(len == 3 * DIGEST_SEGMENT);
}
