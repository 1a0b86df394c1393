#include "base/clock.h"
#include "base/sys.h"
#include "base/term.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void check(void (*fn)(uint64_t, struct buf *), uint64_t n, const char *want)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    fn(n, &b);
    CHECK_STR(buf_str(&b), want);
}

TEST(sizes_and_durations_read_well)
{
    check(term_size, 0, "0 B");
    check(term_size, 1023, "1023 B");
    check(term_size, 1536, "1.5 KiB");
    check(term_size, (uint64_t)200 << 20, "200 MiB");
    check(term_size, 1024, "1.0 KiB");
    check(term_size, 1048063, "1023 KiB");
    check(term_size, 1048064, "1.0 MiB"); /* never "1024 KiB" */
    check(term_size, ((uint64_t)100 << 20) - 1, "100 MiB");
    check(term_size, (uint64_t)3 << 50, "3072 TiB");
    check(term_duration, 0, "0.0 ms");
    check(term_duration, 999999999, "999 ms");
    check(term_duration, 1500000, "1.5 ms");
    check(term_duration, 312000000, "312 ms");
    check(term_duration, 1240000000, "1.24 s");
    check(term_duration, (uint64_t)192 * 1000000000, "3 min 12 s");
    check(term_duration, (uint64_t)7199 * 1000000000, "119 min 59 s");
    check(term_duration, (uint64_t)19259 * 1000000000, "5 h 20 min");
}

TEST(tables_are_aligned_and_hold_no_control_characters)
{
    static const char *const titles[] = {"NAME", ">SIZE"};
    static const char *const one[] = {"a\033[31m", "5"}, *const two[] = {"längere", NULL};
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    struct term_table t;
    term_table_init(&t, titles, 2);
    term_table_row(&t, one);
    term_table_row(&t, two);
    term_table_print(&t, &b);
    term_table_done(&t);
    CHECK_STR(buf_str(&b), "NAME     SIZE\n"
                           "a?[31m      5\n"
                           "längere     -\n");
}

static void check_age(const char *time, const char *want)
{
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    term_age(time, &b);
    CHECK_STR(buf_str(&b), want);
}

static void check_ago(time_t seconds, const char *want)
{
    char text[64];
    struct tm tm;
    time_t then = time(NULL) - seconds;
    CHECK(gmtime_r(&then, &tm));
    CHECK(strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S.123456789Z", &tm));
    check_age(text, want);
}

TEST(ages_read_well)
{
    check_ago(3 * 60 + 30, "3 min ago");
    check_ago((time_t)47 * 3600 + 30, "47 h ago");
    check_ago((time_t)49 * 3600, "2 days ago");
    check_ago(-1000, "0 s ago");
}

TEST(what_is_no_time_is_shown_as_it_is)
{
    check_age(NULL, "-");
    check_age("", "");
    check_age("yesterday", "yesterday");
    check_age("2026-01-01", "2026-01-01");
    check_age("2026-01-01T00:00:00", "2026-01-01T00:00:00");
    check_age("2026-01-01T00:00:00+02:00", "2026-01-01T00:00:00+02:00");
    check_age("2026-01-01T00:00:00.5x", "2026-01-01T00:00:00.5x");
}

/* A terminal whose output is read back. */
static int own_terminal(void)
{
    int pty = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    CHECK(pty >= 0 && grantpt(pty) == 0 && unlockpt(pty) == 0);
    CLEANUP(fd_closep) int side = sys_openat(AT_FDCWD, ptsname(pty), O_RDWR | O_NOCTTY, 0);
    CHECK(side >= 0 && dup3(side, STDERR_FILENO, 0) == STDERR_FILENO);
    CHECK(fcntl(pty, F_SETFL, O_NONBLOCK) == 0);
    return pty;
}

TEST(progress_is_quiet_for_a_second_then_drawn_and_taken_away)
{
    CLEANUP(fd_closep) int pty = own_terminal();
    char text[512];
    struct term_progress p;
    term_progress_init(&p, true);
    CHECK(p.enabled);
    term_progress(&p, "copy", 1, 4);
    CHECK(read(pty, text, sizeof(text)) < 0);
    term_progress_end(&p);
    CHECK(read(pty, text, sizeof(text)) < 0);
    term_progress(&p, "copy", 1, 4);
    p.begun -= 2 * CLOCK_S;
    term_progress(&p, "copy", 1 << 20, 4 << 20);
    ssize_t n = read(pty, text, sizeof(text) - 1);
    CHECK(n > 0);
    text[n] = '\0';
    CHECK(strstr(text, "copy  [######                  ]  25%  1.0 MiB"));
    CHECK(strstr(text, "/s") && strstr(text, " left"));
    term_progress(&p, "copy", 2 << 20, 4 << 20); /* too soon to draw again */
    CHECK(read(pty, text, sizeof(text)) < 0);
    term_progress_end(&p);
    CHECK(read(pty, text, sizeof(text)) == 4 && memcmp(text, "\r\033[K", 4) == 0);
}

TEST(progress_is_for_terminals_that_want_it)
{
    struct term_progress p;
    CLEANUP(fd_closep) int pty = own_terminal();
    term_progress_init(&p, false);
    CHECK(!p.enabled);
    CLEANUP(fd_closep) int null = sys_openat(AT_FDCWD, "/dev/null", O_WRONLY, 0);
    CHECK(dup3(null, STDERR_FILENO, 0) == STDERR_FILENO);
    term_progress_init(&p, true);
    CHECK(!p.enabled);
    term_progress(&p, "copy", 1, 4);
    term_progress_end(&p);
    char text[16];
    CHECK(read(pty, text, sizeof(text)) < 0);
}
