#include "codec/secret.h"
#include "harness/test.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Flags of the mapping that holds an address, as /proc/self/smaps tells them. */
static void flags_of(const void *p, char out[256])
{
    char line[512];
    unsigned long begin = 0, end = 0;
    FILE *f = fopen("/proc/self/smaps", "re");
    CHECK(f != NULL);
    out[0] = '\0';
    while (fgets(line, sizeof(line), f)) {
        unsigned long b = 0, e = 0;
        if (sscanf(line, "%lx-%lx ", &b, &e) == 2) {
            begin = b;
            end = e;
        }
        if (strncmp(line, "VmFlags:", 8) == 0 && (uintptr_t)p >= begin && (uintptr_t)p < end)
            (void)snprintf(out, 256, "%.255s", line);
    }
    (void)fclose(f);
}

TEST(a_secret_is_zero_and_stays_out_of_core_files)
{
    char flags[256];
    uint8_t *p = secret_alloc(100);
    for (size_t i = 0; i < 100; i++)
        CHECK(p[i] == 0);
    flags_of(p, flags);
    CHECK(strstr(flags, " dd") && strstr(flags, " wf"));
    secret_freep(&p);
    CHECK(!p);
    secret_freep(&p);
}

TEST(a_child_does_not_see_it)
{
    CLEANUP(secret_freep) char *p = secret_alloc(8);
    memcpy(p, "keep it", 8);
    pid_t pid = fork();
    if (pid == 0) {
        bool empty = p[0] == '\0' && p[6] == '\0';
        secret_freep(&p); /* must not harm */
        _exit(empty ? 0 : 1);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_STR(p, "keep it");
}

TEST(a_child_that_is_to_have_it_has_it_and_its_own_child_has_not)
{
    CLEANUP(secret_freep) char *p = secret_alloc(8);
    memcpy(p, "keep it", 8);
    secret_inherit(p, true);
    pid_t pid = fork();
    if (pid == 0) {
        int status = 0;
        bool there = strcmp(p, "keep it") == 0;
        secret_inherit(p, false);
        pid_t next = fork();
        if (next == 0)
            _exit(p[0] == '\0' ? 0 : 1);
        _exit(there && waitpid(next, &status, 0) == next && status == 0 ? 0 : 1);
    }
    int status = 0;
    secret_inherit(p, false);
    char flags[256];
    flags_of(p, flags);
    CHECK(strstr(flags, " wf"));
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK_STR(p, "keep it");
}

TEST(wiping_leaves_zeros)
{
    char text[16] = "hush";
    secret_wipe(text, sizeof(text));
    CHECK(text[0] == '\0' && text[3] == '\0');
}
