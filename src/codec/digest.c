#include "codec/digest.h"

#include "base/compiler.h"
#include "base/mem.h"

#include <blake3.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 16
#define FOLLOW_PAUSE_NS 2000000L
static const char prefix[] = "blake3:";

void digest_of(const void *data, size_t len, struct digest *out)
{
    blake3_hasher h;
    blake3_hasher_init(&h);
    blake3_hasher_update(&h, data, len);
    blake3_hasher_finalize(&h, out->bytes, DIGEST_LEN);
}

struct digest_sum {
    blake3_hasher hasher;
};

struct digest_sum *digest_sum_new(void)
{
    struct digest_sum *s = mem_alloc(sizeof(*s));
    blake3_hasher_init(&s->hasher);
    return s;
}

void digest_sum_add(struct digest_sum *s, const void *data, size_t len)
{
    blake3_hasher_update(&s->hasher, data, len);
}

void digest_sum_take(struct digest_sum *s, struct digest *out)
{
    blake3_hasher_finalize(&s->hasher, out->bytes, DIGEST_LEN);
    blake3_hasher_reset(&s->hasher);
}

void digest_sum_freep(struct digest_sum **p)
{
    free(STEAL(*p));
}

bool digest_equal(const struct digest *a, const struct digest *b)
{
    return memcmp(a->bytes, b->bytes, DIGEST_LEN) == 0;
}

void digest_format(const struct digest *d, char out[DIGEST_TEXT_LEN + 1])
{
    static const char hex[] = "0123456789abcdef";
    memcpy(out, prefix, 7);
    for (size_t i = 0; i < DIGEST_LEN; i++) {
        out[7 + 2 * i] = hex[d->bytes[i] >> 4];
        out[8 + 2 * i] = hex[d->bytes[i] & 15];
    }
    out[DIGEST_TEXT_LEN] = '\0';
}

static int nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

enum rc digest_parse(const char *text, size_t len, struct digest *out, struct err *err)
{
    struct digest d;
    if (len != DIGEST_TEXT_LEN || memcmp(text, prefix, 7) != 0)
        return err_set(err, RC_INVALID, "no digest: '%.*s'", (int)(len < 80 ? len : 80), text);
    for (size_t i = 0; i < DIGEST_LEN; i++) {
        int hi = nibble(text[7 + 2 * i]), lo = nibble(text[8 + 2 * i]);
        if (hi < 0 || lo < 0)
            return err_set(err, RC_INVALID, "no digest: '%.*s'", (int)len, text);
        d.bytes[i] = (uint8_t)(hi << 4 | lo);
    }
    *out = d;
    return RC_OK;
}

/* Work shared by the threads: take the next segment, hash it, put its digest in its place. */
struct work {
    int fd;
    uint64_t *done; /* atomic; NULL = nobody wants to know */
    const struct cancel *cancel;
    _Atomic uint64_t limit; /* segments that may be hashed now */
    _Atomic uint64_t next;
    _Atomic bool complete; /* the file has its final length */
    _Atomic int failed;    /* errno of the first failure */
    pthread_mutex_t lock;  /* guards digests, capacity */
    struct digest *digests;
    uint64_t capacity;
    uint64_t length; /* valid when complete */
};

static void store_digest(struct work *w, uint64_t i, const struct digest *d)
{
    (void)pthread_mutex_lock(&w->lock);
    if (i >= w->capacity) {
        w->capacity = i + 1 > w->capacity * 2 ? i + 64 : w->capacity * 2;
        w->digests = mem_realloc(w->digests, w->capacity * sizeof(*w->digests));
    }
    w->digests[i] = *d;
    (void)pthread_mutex_unlock(&w->lock);
}

/* Read through a buffer rather than a mapping: a file that shrinks is an error, not a SIGBUS. */
static int hash_segment(struct work *w, uint64_t i, uint8_t *buf, struct digest *out)
{
    size_t want = DIGEST_SEGMENT;
    uint64_t at = i * DIGEST_SEGMENT;
    if (atomic_load(&w->complete) && w->length - at < want)
        want = (size_t)(w->length - at);
    size_t piece = 256 << 10;
    blake3_hasher h;
    blake3_hasher_init(&h);
    for (size_t got = 0; got < want;) {
        size_t step = want - got < piece ? want - got : piece;
        ssize_t n = pread(w->fd, buf, step, (off_t)(at + got));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? errno : EIO;
        blake3_hasher_update(&h, buf, (size_t)n);
        got += (size_t)n;
        if (w->done)
            (void)__atomic_add_fetch(w->done, (uint64_t)n, __ATOMIC_RELAXED);
    }
    blake3_hasher_finalize(&h, out->bytes, DIGEST_LEN);
    return 0;
}

static void *work_thread(void *arg)
{
    struct work *w = arg;
    CLEANUP(mem_freep) uint8_t *buf = mem_alloc(256 << 10);
    while (!atomic_load(&w->failed)) {
        if (cancel_asked(w->cancel)) {
            atomic_store(&w->failed, ECANCELED);
            break;
        }
        bool complete = atomic_load(&w->complete);
        uint64_t i = atomic_load(&w->next);
        if (i < atomic_load(&w->limit)) {
            struct digest d;
            if (!atomic_compare_exchange_strong(&w->next, &i, i + 1))
                continue;
            int bad = hash_segment(w, i, buf, &d);
            if (bad)
                atomic_store(&w->failed, bad);
            else
                store_digest(w, i, &d);
        } else if (complete) {
            break;
        } else {
            struct timespec pause = {0, FOLLOW_PAUSE_NS};
            struct stat st;
            if (fstat(w->fd, &st) == 0 && !atomic_load(&w->complete)) {
                uint64_t whole = (uint64_t)st.st_size / DIGEST_SEGMENT;
                uint64_t limit = atomic_load(&w->limit);
                if (whole > limit)
                    (void)atomic_compare_exchange_strong(&w->limit, &limit, whole);
                else
                    (void)nanosleep(&pause, NULL);
            }
        }
    }
    return NULL;
}

static uint64_t segments_of(uint64_t length)
{
    return length / DIGEST_SEGMENT + (length % DIGEST_SEGMENT != 0);
}

void digest_of_segments(const struct digest *segments, uint64_t len, struct digest *out)
{
    blake3_hasher h;
    blake3_hasher_init(&h);
    uint8_t length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (uint8_t)(len >> (8 * i));
    if (len)
        blake3_hasher_update(&h, segments, segments_of(len) * sizeof(*segments));
    blake3_hasher_update(&h, length, sizeof(length));
    blake3_hasher_finalize(&h, out->bytes, DIGEST_LEN);
}

struct digest_follow {
    struct work work;
    pthread_t threads[THREADS_MAX];
    unsigned n_threads;
};

enum rc digest_follow_start(int fd, unsigned threads, struct digest_follow **out, struct err *err)
{
    struct digest_follow *f = mem_zalloc(sizeof(*f));
    f->work.fd = fd;
    (void)pthread_mutex_init(&f->work.lock, NULL);
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    for (unsigned i = 0; i < (threads ? threads : 1); i++) {
        int bad = pthread_create(&f->threads[i], NULL, work_thread, &f->work);
        if (bad && i == 0) {
            free(f);
            errno = bad;
            return err_sys(err, "start a thread");
        }
        if (!bad)
            f->n_threads++;
    }
    *out = f;
    return RC_OK;
}

enum rc digest_follow_finish(struct digest_follow *f, uint64_t *out_len, struct digest *out,
                             struct err *err)
{
    struct work *w = &f->work;
    struct stat st;
    if (fstat(w->fd, &st) < 0)
        atomic_store(&w->failed, errno);
    w->length = (uint64_t)st.st_size;
    atomic_store(&w->complete, true);
    atomic_store(&w->limit, segments_of(w->length));
    (void)work_thread(w); /* what is left is shared with whoever waits for it */
    for (unsigned i = 0; i < f->n_threads; i++)
        (void)pthread_join(f->threads[i], NULL);
    enum rc rc = RC_OK;
    int failed = atomic_load(&w->failed);
    if (failed) {
        errno = failed;
        rc = err_sys(err, "read");
    } else {
        digest_of_segments(w->digests, w->length, out);
        *out_len = w->length;
    }
    free(w->digests);
    (void)pthread_mutex_destroy(&w->lock);
    free(f);
    return rc;
}

enum rc digest_file(int fd, unsigned threads, uint64_t *done, uint64_t *out_len, struct digest *out,
                    struct err *err)
{
    return digest_file_until(fd, threads, done, NULL, out_len, out, err);
}

/* NOLINTNEXTLINE(readability-non-const-parameter): `done` is counted up through the work */
enum rc digest_file_until(int fd, unsigned threads, uint64_t *done, const struct cancel *cancel,
                          uint64_t *out_len, struct digest *out, struct err *err)
{
    struct work w = {.fd = fd, .done = done, .cancel = cancel};
    struct stat st;
    pthread_t extra[THREADS_MAX];
    unsigned n = 0;
    if (fstat(fd, &st) < 0)
        return err_sys(err, "stat");
    w.length = (uint64_t)st.st_size;
    atomic_store(&w.complete, true);
    atomic_store(&w.limit, segments_of(w.length));
    (void)pthread_mutex_init(&w.lock, NULL);
    if (threads > THREADS_MAX)
        threads = THREADS_MAX;
    while (n + 1 < threads && n + 1 < segments_of(w.length) &&
           pthread_create(&extra[n], NULL, work_thread, &w) == 0)
        n++;
    (void)work_thread(&w);
    for (unsigned i = 0; i < n; i++)
        (void)pthread_join(extra[i], NULL);
    int failed = atomic_load(&w.failed);
    if (!failed) {
        digest_of_segments(w.digests, w.length, out);
        *out_len = w.length;
    }
    free(w.digests);
    (void)pthread_mutex_destroy(&w.lock);
    if (failed == ECANCELED && cancel)
        return cancel_error(cancel, err);
    errno = failed;
    return failed ? err_sys(err, "read") : RC_OK;
}

void digest_file_bytes(const void *data, size_t len, struct digest *out)
{
    struct work w = {.length = len};
    uint64_t n = segments_of(len);
    w.digests = mem_alloc((n + 1) * sizeof(*w.digests));
    for (uint64_t i = 0; i < n; i++) {
        size_t at = (size_t)(i * DIGEST_SEGMENT), rest = len - at;
        digest_of((const uint8_t *)data + at, rest < DIGEST_SEGMENT ? rest : DIGEST_SEGMENT,
                  &w.digests[i]);
    }
    digest_of_segments(w.digests, len, out);
    free(w.digests);
}
