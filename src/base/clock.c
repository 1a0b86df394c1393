#include "base/clock.h"

#include <limits.h>
#include <stdio.h>
#include <time.h>

uint64_t clock_now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * CLOCK_S + (uint64_t)t.tv_nsec;
}

int clock_poll_ms(uint64_t deadline)
{
    if (!deadline)
        return -1;
    uint64_t now = clock_now();
    if (now >= deadline)
        return 0;
    uint64_t ms = (deadline - now + CLOCK_MS - 1) / CLOCK_MS;
    return ms > INT_MAX ? INT_MAX : (int)ms;
}

void clock_rfc3339(char out[CLOCK_RFC3339_LEN])
{
    clock_rfc3339_ago(0, out);
}

void clock_rfc3339_ago(uint64_t ns, char out[CLOCK_RFC3339_LEN])
{
    struct timespec t;
    struct tm tm;
    (void)clock_gettime(CLOCK_REALTIME, &t);
    uint64_t now = (uint64_t)t.tv_sec * CLOCK_S + (uint64_t)t.tv_nsec;
    now -= ns < now ? ns : now;
    t = (struct timespec){(time_t)(now / CLOCK_S), (long)(now % CLOCK_S)};
    (void)gmtime_r(&t.tv_sec, &tm);
    char head[CLOCK_LOCAL_LEN];
    (void)strftime(head, sizeof(head), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(out, CLOCK_RFC3339_LEN, "%s.%09uZ", head, (unsigned)t.tv_nsec % 1000000000U);
}

void clock_local(char out[CLOCK_LOCAL_LEN])
{
    time_t t = time(NULL);
    struct tm tm;
    (void)localtime_r(&t, &tm);
    (void)strftime(out, CLOCK_LOCAL_LEN, "%Y-%m-%d %H:%M:%S", &tm);
}
