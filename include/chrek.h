/* chrek.h: what a program under chrek can say and ask.  One header, no library, C99 or C++.
 *
 *     load_everything();
 *     chrek_ready();                    // "freeze me now"
 *     if (chrek_wait(-1) == CHREK_RESTORED)
 *         reseed_and_reconnect();       // this is another life of the process
 *     serve();
 *
 * Nothing here needs chrek to be there: without it chrek_ready() does nothing and chrek_wait()
 * returns CHREK_ALONE at once, so the same program runs anywhere.
 *
 * All of it is plain files, for who prefers them or writes in another language: the directory
 * $CHREK_DIR holds `generation`, `checkpoint_id`, `restored_at`, `hostname`, `env`, `random`,
 * `identity.json` and `outcome`; the program creates `ready`.  Without that variable it is
 * /run/chrek/app, but only in a box of chrek's or in a job of the ChReK contract: elsewhere such a
 * directory is what a program before us has left.
 * In a checkpoint job or restore pod of the ChReK contract the files named by
 * DYN_CHECKPOINT_READY_FILE, DYN_CHECKPOINT_SIGNAL_FILE and DYN_RESTORE_MARKER_FILE are honoured.
 *
 * Threads: call chrek_ready() and chrek_wait() from one thread; the others from any.
 * Functions that can fail return a negative errno value.
 */
#ifndef CHREK_H
#define CHREK_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifdef O_CLOEXEC
#define CHREK_CLOEXEC O_CLOEXEC
#else
#define CHREK_CLOEXEC 0
#endif

#define CHREK_DEFAULT_DIR "/run/chrek/app"
#define CHREK_DEFAULT_MARKER "/tmp/dynamo-restored"
#define CHREK_RANDOM_BYTES 64

/* What ended chrek_wait(). */
enum chrek_event {
    CHREK_TIMEOUT = 0, /* nothing has happened in that time */
    CHREK_RESTORED,    /* this is a restored process: take the new identity, reconnect, serve */
    CHREK_SAVED,       /* the checkpoint is made and this is still the original process */
    CHREK_NOT_SAVED,   /* the checkpoint failed; this is still the original process */
    CHREK_ALONE,       /* nobody is there to make a checkpoint */
};

/* What chrek_wait() compares with; set by chrek_ready(). */
struct chrek_private {
    int is_set;
    int64_t generation;
    struct stat outcome;
};

static inline struct chrek_private *chrek_private_state(void)
{
    static struct chrek_private state;
    return &state;
}

/* Whether this is a worker of the ChReK contract, started to be checkpointed: it should exit when
 * chrek_wait() says CHREK_SAVED (status 0) or CHREK_NOT_SAVED (status 1). */
static inline int chrek_is_job(void)
{
    const char *file = getenv("DYN_CHECKPOINT_SIGNAL_FILE");
    return file && *file;
}

/* A box has its own file system there. */
static inline int chrek_private_in_box(void)
{
    struct stat own, above;
    return stat("/run/chrek", &own) == 0 && stat("/run", &above) == 0 && own.st_dev != above.st_dev;
}

/* Path of a file in the application directory.  Returns 0, -ENOENT when chrek is not there, or
 * -ENAMETOOLONG. */
static inline int chrek_path(const char *name, char *out, size_t size)
{
    const char *dir = getenv("CHREK_DIR");
    int n;
    if (!(dir && *dir) && !chrek_is_job() && !chrek_private_in_box())
        return -ENOENT;
    n = snprintf(out, size, "%s/%s", dir && *dir ? dir : CHREK_DEFAULT_DIR, name);
    return n < 0 || (size_t)n >= size ? -ENAMETOOLONG : 0;
}

/* Read at most `size` bytes of a file; returns their number. */
static inline ssize_t chrek_private_read(const char *path, void *data, size_t size)
{
    int fd = open(path, O_RDONLY | CHREK_CLOEXEC), saved = 0;
    size_t have = 0;
    if (fd < 0)
        return -errno;
    while (have < size) {
        ssize_t n = read(fd, (char *)data + have, size - have);
        if (n < 0 && errno == EINTR)
            continue;
        saved = n < 0 ? -errno : 0;
        if (n <= 0)
            break;
        have += (size_t)n;
    }
    (void)close(fd);
    return saved ? saved : (ssize_t)have;
}

/* Read a small text file of the application directory, without its last newline.
 * Returns its length, -ENOENT when there is none, -ERANGE when it does not fit. */
static inline ssize_t chrek_read(const char *name, char *out, size_t size)
{
    char path[PATH_MAX];
    int bad = chrek_path(name, path, sizeof(path));
    ssize_t n = bad || !size ? (bad ? bad : -ERANGE) : chrek_private_read(path, out, size);
    if (n < 0)
        return n;
    if ((size_t)n == size)
        return -ERANGE;
    if (n && out[n - 1] == '\n')
        n--;
    out[n] = '\0';
    return n;
}

/* How often this line of checkpoints has been restored: 0 in a process that was started cold, 1 and
 * more in a restored one, -ENOENT when chrek is not there. */
static inline int64_t chrek_generation(void)
{
    char text[32];
    ssize_t n = chrek_read("generation", text, sizeof(text));
    int64_t value = 0;
    if (n <= 0)
        return n ? n : -ENOENT;
    for (const char *p = text; *p; p++) {
        if (*p < '0' || *p > '9' || value > INT64_MAX / 10 - 10)
            return -EINVAL;
        value = value * 10 + (*p - '0');
    }
    return value;
}

static inline int chrek_private_marker(void)
{
    const char *marker = getenv("DYN_RESTORE_MARKER_FILE");
    if (!marker || !*marker)
        marker = CHREK_DEFAULT_MARKER;
    return chrek_is_job() && access(marker, F_OK) == 0;
}

/* Whether this process has been restored from a checkpoint. */
static inline int chrek_restored(void)
{
    return chrek_generation() > 0 || chrek_private_marker();
}

/* Write a file so that a reader sees all of it or nothing. */
static inline int chrek_private_write(const char *path, const char *text)
{
    char temporary[PATH_MAX];
    int n = snprintf(temporary, sizeof(temporary), "%s.%ld", path, (long)getpid());
    int fd, bad = 0;
    size_t len = strlen(text);
    if (n < 0 || (size_t)n >= sizeof(temporary))
        return -ENAMETOOLONG;
    fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | CHREK_CLOEXEC, 0644);
    if (fd < 0)
        return -errno;
    if (write(fd, text, len) != (ssize_t)len)
        bad = errno ? -errno : -EIO;
    if (close(fd) < 0 && !bad)
        bad = -errno;
    if (!bad && rename(temporary, path) < 0)
        bad = -errno;
    if (bad)
        (void)unlink(temporary);
    return bad;
}

static inline void chrek_private_remember(void)
{
    struct chrek_private *s = chrek_private_state();
    char path[PATH_MAX];
    memset(s, 0, sizeof(*s));
    s->is_set = 1;
    s->generation = chrek_generation();
    if (chrek_path("outcome", path, sizeof(path)) || stat(path, &s->outcome) < 0)
        memset(&s->outcome, 0, sizeof(s->outcome));
}

static inline int chrek_private_has_dir(void)
{
    char path[PATH_MAX];
    struct stat st;
    return chrek_path("", path, sizeof(path)) == 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* Say that the program may be frozen now: everything is loaded, no connection to the outside is
 * open.  `chrek run --ready file:ready` waits for this.  Returns 0, also when chrek is not there. */
static inline int chrek_ready(void)
{
    const char *file = getenv("DYN_CHECKPOINT_READY_FILE");
    char path[PATH_MAX];
    int bad = chrek_path("ready", path, sizeof(path));
    if (bad == -ENOENT)
        bad = 0;
    chrek_private_remember(); /* before anybody can act on it */
    if (!bad && chrek_private_has_dir())
        bad = chrek_private_write(path, "ready");
    if (!bad && file && *file)
        bad = chrek_private_write(file, "ready");
    return bad;
}

/* What `outcome` or the signal file says since chrek_ready(); CHREK_TIMEOUT: nothing yet. */
static inline enum chrek_event chrek_private_outcome(void)
{
    const struct chrek_private *s = chrek_private_state();
    char path[PATH_MAX], text[4096];
    const char *file = getenv("DYN_CHECKPOINT_SIGNAL_FILE"), *p;
    struct stat now;
    ssize_t n;
    if (chrek_path("outcome", path, sizeof(path)) == 0 && stat(path, &now) == 0 &&
        (now.st_ino != s->outcome.st_ino || now.st_mtim.tv_sec != s->outcome.st_mtim.tv_sec ||
         now.st_mtim.tv_nsec != s->outcome.st_mtim.tv_nsec) &&
        chrek_read("outcome", text, sizeof(text)) > 0)
        return strncmp(text, "saved", 5) == 0 ? CHREK_SAVED : CHREK_NOT_SAVED;
    if (!file || !*file)
        return CHREK_TIMEOUT;
    n = chrek_private_read(file, text, sizeof(text) - 1);
    if (n <= 0)
        return CHREK_TIMEOUT;
    text[n] = '\0';
    p = strstr(text, "\"success\"");
    p = p ? p + strlen("\"success\"") : text;
    p += strspn(p, " \t\r\n:");
    return strncmp(p, "true", 4) == 0 ? CHREK_SAVED : CHREK_NOT_SAVED;
}

/* Wait until the program shall go on: it was restored, or its checkpoint is made (or has failed).
 * timeout_ms  -1 = for ever
 * The time that a process spends in a checkpoint may count as waiting. */
static inline enum chrek_event chrek_wait(int timeout_ms)
{
    struct chrek_private *s = chrek_private_state();
    struct timespec begin, now, pause = {0, 10000000L};
    enum chrek_event event = CHREK_TIMEOUT;
    if (!chrek_private_has_dir() && !chrek_is_job())
        return CHREK_ALONE;
    if (!s->is_set)
        chrek_private_remember();
    (void)clock_gettime(CLOCK_MONOTONIC, &begin);
    for (;;) {
        int64_t generation = chrek_generation();
        if ((generation > 0 && generation != s->generation) || chrek_private_marker())
            event = CHREK_RESTORED; /* before the signal file, which may be an old one */
        else
            event = chrek_private_outcome();
        if (event != CHREK_TIMEOUT)
            break;
        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        if (timeout_ms >= 0 && (now.tv_sec - begin.tv_sec) * 1000 +
                                       (now.tv_nsec - begin.tv_nsec) / 1000000 >=
                                   timeout_ms)
            return CHREK_TIMEOUT;
        (void)nanosleep(&pause, NULL);
    }
    s->is_set = 0;
    return event;
}

/* The value of a variable in the environment of whoever restored this process; getenv() still has
 * the environment of the first start.  Without chrek it is getenv()'s.
 * Returns its length, -ENOENT (no such variable), -ERANGE (does not fit), -EACCES (the file is for
 * the user who started the program). */
static inline ssize_t chrek_getenv(const char *name, char *out, size_t size)
{
    char path[PATH_MAX];
    const char *own = getenv(name);
    size_t len = strlen(name), n = 0, matched = 0;
    int c, in_value = 0, found = 0, bad = chrek_path("env", path, sizeof(path));
    FILE *f = bad ? NULL : fopen(path, "re");
    if (!f && !bad && errno != ENOENT)
        return -errno;
    if (!f) {
        n = own ? strlen(own) : 0;
        if (!own || n >= size)
            return own ? -ERANGE : -ENOENT;
        memcpy(out, own, n + 1);
        return (ssize_t)n;
    }
    while (!found && (c = fgetc(f)) != EOF) {
        if (c == '\n') {
            found = in_value;
            in_value = 0;
            matched = found ? len : 0;
        } else if (in_value) {
            if (c == '\\')
                c = fgetc(f) == 'n' ? '\n' : '\\';
            if (n < size)
                out[n] = (char)c;
            n++;
        } else if (matched == len && c == '=') {
            in_value = 1;
        } else {
            matched = matched < len && c == name[matched] ? matched + 1 : len + 1;
        }
    }
    (void)fclose(f);
    if (!found)
        return -ENOENT;
    if (n >= size)
        return -ERANGE;
    out[n] = '\0';
    return (ssize_t)n;
}

/* Bytes to seed a generator with that no other restore of the same checkpoint gets; the same ones
 * until the next restore.  Every generator whose state is in memory must be seeded again after a
 * restore.  `size` at most CHREK_RANDOM_BYTES.  Returns 0. */
static inline int chrek_random(void *out, size_t size)
{
    char path[PATH_MAX];
    int bad = size > CHREK_RANDOM_BYTES ? -EINVAL : chrek_path("random", path, sizeof(path));
    ssize_t n = bad ? bad : chrek_private_read(path, out, size);
    if (n == -ENOENT)
        n = chrek_private_read("/dev/urandom", out, size);
    return n < 0 ? (int)n : (size_t)n == size ? 0 : -EIO;
}

#ifdef __cplusplus
}
#endif

#endif
