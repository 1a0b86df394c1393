#include "container/maps.h"

#include "base/buf.h"
#include "base/mem.h"
#include "container/scan.h"
#include "container/task.h"

#include <limits.h>
#include <stdlib.h>

void maps_done(struct maps *m)
{
    for (size_t i = 0; i < m->n; i++)
        free(m->list[i].name);
    free(m->list);
    *m = (struct maps){0};
}

static bool take_range(struct scan s, struct map *m)
{
    struct scan start;
    return scan_until(&s, '-', &start) && scan_u64(start, 16, &m->start) &&
           scan_u64(s, 16, &m->end) && m->start <= m->end;
}

static bool take_device(struct scan s, struct map *m)
{
    struct scan major;
    uint64_t a = 0, b = 0;
    if (!scan_until(&s, ':', &major) || !scan_u64(major, 16, &a) || !scan_u64(s, 16, &b) ||
        a > UINT_MAX || b > UINT_MAX)
        return false;
    m->major = (unsigned)a;
    m->minor = (unsigned)b;
    return true;
}

static bool take_rights(struct scan s, struct map *m)
{
    if (scan_len(s) != 4)
        return false;
    m->flags = (s.at[0] == 'r' ? MAPS_READ : 0U) | (s.at[1] == 'w' ? MAPS_WRITE : 0U) |
               (s.at[2] == 'x' ? MAPS_EXEC : 0U) | (s.at[3] == 's' ? MAPS_SHARES : 0U);
    return s.at[3] == 's' || s.at[3] == 'p';
}

/* 7f00-7f10 rw-p 00000000 fe:01 1234    /a name with blanks (deleted) */
static bool take_area(struct scan range, struct scan s, struct map *m)
{
    struct scan rights, off, device, ino;
    if (!take_range(range, m) || !scan_word(&s, &rights) || !take_rights(rights, m) ||
        !scan_word(&s, &off) || !scan_u64(off, 16, &m->off) || !scan_word(&s, &device) ||
        !take_device(device, m) || !scan_word(&s, &ino) || !scan_u64(ino, 10, &m->ino))
        return false;
    while (scan_starts(s, " "))
        s.at++;
    m->name = scan_dup(s);
    return true;
}

/* "VmFlags: rd wr mr mw me ac" */
static unsigned take_flags(struct scan s)
{
    static const struct {
        const char *text;
        unsigned flag;
    } known[] = {{"lo", MAPS_LOCKS},        {"ht", MAPS_HUGE},
                 {"io", MAPS_IO},           {"pf", MAPS_IO},
                 {"sl", MAPS_SEALED},       {"ss", MAPS_SHADOW},
                 {"mw", MAPS_MAY_WRITE},    {"hg", MAPS_WANTS_HUGE_PAGES},
                 {"nh", MAPS_NO_HUGE_PAGES}};
    unsigned flags = 0;
    struct scan word;
    while (scan_word(&s, &word))
        for (size_t i = 0; i < ARRAY_LEN(known); i++)
            if (scan_is(word, known[i].text))
                flags |= known[i].flag;
    return flags;
}

enum rc maps_parse(const char *text, size_t len, struct maps *out, struct err *err)
{
    CLEANUP(maps_done) struct maps m = {0};
    struct scan line, word, s = scan_of(text, len);
    size_t cap = 0;
    while (scan_line(&s, &line)) {
        struct map one = {0};
        if (!scan_word(&line, &word))
            continue;
        if (scan_ends(word, ":")) { /* a line of smaps about the area before */
            if (m.n && scan_is(word, "VmFlags:"))
                m.list[m.n - 1].flags |= take_flags(line);
            continue;
        }
        if (m.n == MAPS_MAX)
            return err_set(err, RC_TOO_BIG, "more than %d memory areas", MAPS_MAX);
        if (!take_area(word, line, &one))
            return err_set(err, RC_CORRUPT, "memory area %zu makes no sense", m.n + 1);
        if (m.n == cap)
            m.list = mem_realloc(m.list, (cap = cap ? cap * 2 : 64) * sizeof(*m.list));
        m.list[m.n++] = one;
    }
    *out = m;
    m = (struct maps){0};
    return RC_OK;
}

enum rc maps_read(int task, bool flags, struct maps *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    enum rc rc = task_read(task, flags ? "smaps" : "maps", &text, err);
    return rc ? rc : maps_parse(text.data, text.len, out, err);
}
