#include "base/term.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define QUIET_NS CLOCK_S
#define REDRAW_NS (100 * CLOCK_MS)
#define BAR 24

void term_size(uint64_t bytes, struct buf *out)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    double v = (double)bytes;
    while (v >= (u ? 1023.5 : 1024) && u + 1 < ARRAY_LEN(units)) { /* what rounds to 1024 */
        v /= 1024;
        u++;
    }
    buf_addf(out, u && v < 99.95 ? "%.1f %s" : "%.0f %s", v, units[u]);
}

void term_duration(uint64_t ns, struct buf *out)
{
    uint64_t s = ns / CLOCK_S;
    if (ns < 10 * CLOCK_MS)
        buf_addf(out, "%.1f ms", (double)ns / 1e6);
    else if (ns < CLOCK_S)
        buf_addf(out, "%" PRIu64 " ms", ns / CLOCK_MS);
    else if (s < 120)
        buf_addf(out, "%.2f s", (double)ns / 1e9);
    else if (s < 7200)
        buf_addf(out, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        buf_addf(out, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
}

void term_age(const char *rfc3339, struct buf *out)
{
    struct tm tm = {0};
    const char *rest = rfc3339 ? strptime(rfc3339, "%Y-%m-%dT%H:%M:%S", &tm) : NULL;
    if (rest && *rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    if (!rest || strcmp(rest, "Z") != 0) {
        buf_adds(out, rfc3339 ? rfc3339 : "-");
        return;
    }
    int64_t age = (int64_t)time(NULL) - (int64_t)timegm(&tm);
    if (age < 60)
        buf_addf(out, "%" PRId64 " s ago", age < 0 ? 0 : age);
    else if (age < 3600)
        buf_addf(out, "%" PRId64 " min ago", age / 60);
    else if (age < (int64_t)2 * 86400)
        buf_addf(out, "%" PRId64 " h ago", age / 3600);
    else
        buf_addf(out, "%" PRId64 " days ago", age / 86400);
}

/* ---- tables ---- */

static void add_cells(struct term_table *t, const char *const *cells)
{
    t->cells = mem_realloc(t->cells, (t->rows + 1) * t->columns * sizeof(*t->cells));
    for (size_t i = 0; i < t->columns; i++) {
        char *text = mem_strdup(cells[i] && *cells[i] ? cells[i] : "-");
        for (char *p = text; *p; p++)
            if ((unsigned char)*p < ' ' || *p == 0x7f)
                *p = '?';
        t->cells[t->rows * t->columns + i] = text;
    }
    t->rows++;
}

void term_table_init(struct term_table *t, const char *const *titles, size_t columns)
{
    *t = (struct term_table){.columns = columns < TERM_COLUMNS_MAX ? columns : TERM_COLUMNS_MAX};
    add_cells(t, titles);
}

void term_table_row(struct term_table *t, const char *const *cells)
{
    add_cells(t, cells);
}

/* Columns that a UTF-8 text takes, near enough: its characters. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

void term_table_print(const struct term_table *t, struct buf *out)
{
    size_t widths[TERM_COLUMNS_MAX] = {0};
    for (size_t i = 0; i < t->rows * t->columns; i++) {
        size_t w = width_of(t->cells[i]) - (i < t->columns && t->cells[i][0] == '>');
        size_t c = i % t->columns;
        widths[c] = w > widths[c] ? w : widths[c];
    }
    for (size_t r = 0; r < t->rows; r++) {
        for (size_t c = 0; c < t->columns; c++) {
            bool right = t->cells[c][0] == '>';
            const char *cell = t->cells[r * t->columns + c] + (r == 0 && right);
            size_t pad = widths[c] - width_of(cell);
            bool last = c + 1 == t->columns;
            buf_addf(out, "%*s%s%*s%s", right ? (int)pad : 0, "", cell,
                     right || last ? 0 : (int)pad, "", last ? "\n" : "  ");
        }
    }
}

void term_table_done(struct term_table *t)
{
    for (size_t i = 0; i < t->rows * t->columns; i++)
        free(t->cells[i]);
    free(t->cells);
    *t = (struct term_table){0};
}

/* ---- progress ---- */

void term_progress_init(struct term_progress *p, bool enabled)
{
    *p = (struct term_progress){.enabled = enabled && isatty(STDERR_FILENO)};
}

static void draw(struct term_progress *p, uint64_t now, uint64_t done, uint64_t total)
{
    CLEANUP(buf_done) struct buf line = BUF_INIT;
    double seconds = (double)(now - p->begun) / 1e9;
    double rate = seconds > 0 ? (double)done / seconds : 0;
    buf_addf(&line, "\r\033[K%s", p->what);
    if (total) {
        uint64_t shown = done < total ? done : total;
        int full = (int)((double)shown / (double)total * BAR);
        buf_addf(&line, "  [%.*s%*s] %3d%%", full, "########################", BAR - full, "",
                 (int)((double)shown / (double)total * 100));
    }
    if (done) {
        buf_adds(&line, "  ");
        term_size(done, &line);
        buf_adds(&line, "  ");
        term_size((uint64_t)rate, &line);
        buf_adds(&line, "/s");
    }
    if (total > done && rate > 0) {
        buf_adds(&line, "  ");
        term_duration((uint64_t)((double)(total - done) / rate * 1e9), &line);
        buf_adds(&line, " left");
    } else if (!total) {
        buf_adds(&line, "  ");
        term_duration(now - p->begun, &line);
    }
    (void)!write(STDERR_FILENO, buf_str(&line), line.len);
}

void term_progress(struct term_progress *p, const char *what, uint64_t done, uint64_t total)
{
    uint64_t now = clock_now();
    if (!p->enabled)
        return;
    if (!p->what || strcmp(p->what, what) != 0) {
        p->what = what;
        p->begun = now;
    }
    if ((!p->drawn && now - p->begun < QUIET_NS) || now - p->last < REDRAW_NS)
        return;
    p->last = now;
    p->drawn = true;
    draw(p, now, done, total);
}

void term_progress_end(struct term_progress *p)
{
    if (p->drawn)
        (void)!write(STDERR_FILENO, "\r\033[K", 4);
    p->drawn = false;
    p->what = NULL;
}
