#include "container/mounts.h"

#include "base/buf.h"
#include "base/mem.h"
#include "container/scan.h"
#include "container/task.h"

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void mount_done(struct mount *m)
{
    free(m->root);
    free(m->target);
    free(m->options);
    free(m->type);
    free(m->source);
    free(m->super);
}

void mounts_done(struct mounts *m)
{
    for (size_t i = 0; i < m->n; i++)
        mount_done(&m->list[i]);
    free(m->list);
    *m = (struct mounts){0};
}

static bool take_u32(struct scan s, uint64_t max, uint64_t *out)
{
    return scan_u64(s, 10, out) && *out <= max;
}

static bool take_device(struct scan s, struct mount *m)
{
    struct scan major, minor;
    uint64_t a = 0, b = 0;
    if (!scan_until(&s, ':', &major) || !scan_until(&s, '\n', &minor) ||
        !take_u32(major, UINT_MAX, &a) || !take_u32(minor, UINT_MAX, &b))
        return false;
    m->major = (unsigned)a;
    m->minor = (unsigned)b;
    return true;
}

/* "shared:1", "master:2"; others are skipped. */
static bool take_peer(struct scan s, struct mount *m)
{
    struct scan key;
    uint64_t n = 0;
    if (!scan_until(&s, ':', &key))
        return true;
    bool shared = scan_is(key, "shared"), master = scan_is(key, "master");
    if (!shared && !master)
        return true;
    if (!take_u32(s, UINT_MAX, &n))
        return false;
    *(shared ? &m->shared : &m->master) = (unsigned)n;
    return true;
}

/* 36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue */
static bool take_line(struct scan s, struct mount *m)
{
    struct scan word[6], w, type, source, super;
    uint64_t id = 0, parent = 0;
    for (int i = 0; i < 6; i++)
        if (!scan_word(&s, &word[i]))
            return false;
    if (!take_u32(word[0], INT_MAX, &id) || !take_u32(word[1], INT_MAX, &parent) ||
        !take_device(word[2], m))
        return false;
    for (;;) {
        if (!scan_word(&s, &w))
            return false;
        if (scan_is(w, "-"))
            break;
        if (!take_peer(w, m))
            return false;
    }
    /* A source may be empty: then two blanks follow each other. */
    s.at += s.at < s.end;
    if (!scan_until(&s, ' ', &type) || !scan_until(&s, ' ', &source))
        return false;
    super = s;
    m->id = (int)id;
    m->parent = (int)parent;
    m->root = scan_dup_unescaped(word[3]);
    m->target = scan_dup_unescaped(word[4]);
    m->options = scan_dup_unescaped(word[5]);
    m->type = scan_dup_unescaped(type);
    m->source = scan_dup_unescaped(source);
    m->super = scan_dup_unescaped(super);
    return true;
}

enum rc mounts_parse(const char *text, size_t len, struct mounts *out, struct err *err)
{
    CLEANUP(mounts_done) struct mounts m = {0};
    struct scan line, s = scan_of(text, len);
    size_t cap = 0;
    while (scan_line(&s, &line)) {
        struct mount one = {0};
        if (m.n == MOUNTS_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d mounts", MOUNTS_MAX);
        if (!take_line(line, &one))
            return err_set(err, RC_CORRUPT, "mount %zu makes no sense: '%.*s'", m.n + 1,
                           scan_len(line) < 80 ? (int)scan_len(line) : 80, line.at);
        if (m.n == cap)
            m.list = mem_realloc(m.list, (cap = cap ? cap * 2 : 32) * sizeof(*m.list));
        m.list[m.n++] = one;
    }
    *out = m;
    m = (struct mounts){0};
    return RC_OK;
}

enum rc mounts_read(int task, struct mounts *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, "mountinfo", &text, err);
    return rc ? rc : mounts_parse(text.data, text.len, out, err);
}

const struct mount *mounts_by_id(const struct mounts *m, int id)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->list[i].id == id)
            return &m->list[i];
    return NULL;
}

static bool is_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    if (n == 1 && dir[0] == '/')
        return path[0] == '/';
    return strncmp(path, dir, n) == 0 && (path[n] == '/' || path[n] == '\0');
}

const struct mount *mounts_of_path(const struct mounts *m, const char *path)
{
    const struct mount *best = NULL;
    for (size_t i = 0; i < m->n; i++)
        if (is_below(path, m->list[i].target) &&
            (!best || strlen(m->list[i].target) >= strlen(best->target)))
            best = &m->list[i];
    return best;
}

const struct mount *mounts_root(const struct mounts *m)
{
    return mounts_of_path(m, "/");
}

/* ---- options ---- */

/* Cut the next option; a comma behind a backslash belongs to it. */
static bool next_option(struct scan *s, struct scan *out)
{
    if (s->at == s->end)
        return false;
    const char *p = s->at;
    while (p < s->end && *p != ',')
        p += *p == '\\' && p + 1 < s->end ? 2 : 1;
    *out = (struct scan){s->at, p};
    s->at = p < s->end ? p + 1 : p;
    return true;
}

bool mounts_has_option(const char *options, const char *name)
{
    struct scan one, s = scan_of(options, strlen(options));
    while (next_option(&s, &one))
        if (scan_is(one, name))
            return true;
    return false;
}

static char *dup_without_backslashes(struct scan s)
{
    char *copy = mem_alloc(scan_len(s) + 1), *to = copy;
    for (const char *p = s.at; p < s.end; p++) {
        p += *p == '\\' && p + 1 < s.end;
        *to++ = *p;
    }
    *to = '\0';
    return copy;
}

char *mounts_option(const char *options, const char *name)
{
    size_t n = strlen(name);
    struct scan one, s = scan_of(options, strlen(options));
    while (next_option(&s, &one)) {
        if (!scan_starts(one, name) || scan_len(one) <= n || one.at[n] != '=')
            continue;
        one.at += n + 1;
        return dup_without_backslashes(one);
    }
    return NULL;
}
