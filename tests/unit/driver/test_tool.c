/* The command line of cuda-checkpoint, as scripts and CRIU's plugin use it. */
#include "base/compiler.h"
#include "driver/tool.h"
#include "harness/test.h"
#include "target.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char text[4096]; /* what it wrote to standard output, then to standard error */

#define MAX_WORDS 16

static int call(pid_t pid, const char *line)
{
    char words[512], number[16], path[300];
    char *argv[MAX_WORDS + 4] = {(char *)(uintptr_t) "cuda-checkpoint"}, *save = NULL;
    int argc = 1;
    (void)snprintf(words, sizeof(words), "%s", line);
    for (char *w = strtok_r(words, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
        CHECK(argc < MAX_WORDS);
        argv[argc++] = w;
    }
    if (pid) {
        (void)snprintf(number, sizeof(number), "%d", (int)pid);
        argv[argc++] = (char *)(uintptr_t) "--pid";
        argv[argc++] = number;
    }
    (void)snprintf(path, sizeof(path), "%s/out", test_dir());
    (void)fflush(stdout);
    int out = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    int keep[2] = {fcntl(1, F_DUPFD_CLOEXEC, 10), fcntl(2, F_DUPFD_CLOEXEC, 10)};
    CHECK(out >= 0 && dup2(out, 1) == 1 && dup2(out, 2) == 2);
    optind = 0;
    int status = tool_main(argc, argv);
    (void)fflush(stdout);
    CHECK(dup2(keep[0], 1) == 1 && dup2(keep[1], 2) == 2);
    ssize_t n = pread(out, text, sizeof(text) - 1, 0);
    CHECK(n >= 0);
    text[n] = '\0';
    (void)close(out);
    (void)close(keep[0]);
    (void)close(keep[1]);
    return status;
}

TEST(state_thread_and_toggle)
{
    pid_t a = target_start(10, NULL);
    CHECK_INT(call(a, "--get-state"), 0);
    CHECK_STR(text, "running\n");
    CHECK_INT(call(a, "--get-restore-tid"), 0);
    CHECK(strtol(text, NULL, 10) > a);
    CHECK_INT(call(a, "--toggle"), 0);
    CHECK_STR(text, "");
    CHECK_INT(call(a, "--get-state"), 0);
    CHECK_STR(text, "checkpointed\n");
    CHECK_INT(target_step(a), 0);
    CHECK_INT(call(a, "--toggle"), 0);
    CHECK(target_step_wait(a) > 0);
    target_end(a);
}

TEST(actions_one_by_one)
{
    static const char *const steps[][2] = {{"--action lock --timeout 5000", "locked\n"},
                                           {"--action checkpoint", "checkpointed\n"},
                                           {"--action restore", "locked\n"},
                                           {"--action unlock", "running\n"}};
    pid_t a = target_start(10, NULL);
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        CHECK_INT(call(a, steps[i][0]), 0);
        CHECK_INT(call(a, "--get-state"), 0);
        CHECK_STR(text, steps[i][1]);
    }
    CHECK_INT(call(a, "--action unlock"), 1); /* in the wrong state */
    CHECK(strstr(text, "CUDA_ERROR_ILLEGAL_STATE"));
    CHECK_INT(call(a, "--action lock"), 0);
    CHECK_INT(call(a, "--toggle"), 1);
    CHECK(strstr(text, "is 'locked'"));
    target_end(a);
}

TEST(a_process_without_cuda)
{
    CHECK_INT(call(1, "--get-restore-tid"), 1);
    CHECK(strstr(text, "process 1 does not use CUDA"));
    CHECK_INT(call(1, "--toggle"), 1);
    CHECK_INT(call(1, "--action lock"), 1);
}

TEST(a_device_map_reaches_the_driver)
{
#define U "GPU-00000000-1111-2222-3333-444444444444"
    pid_t a = target_start(10, NULL);
    CHECK_INT(call(a, "--toggle"), 0);
    CHECK_INT(call(a, "--action restore -d " U "=GPU-b0000000-1111-2222-3333-444444444444"), 1);
    CHECK(strstr(text, "CUDA_ERROR_NO_DEVICE"));
    CHECK_INT(call(a, "--action restore --device-map " U "=" U), 0);
    target_end(a);
}

TEST(help_names_the_options_that_criu_looks_for)
{
    CHECK_INT(call(0, "-h"), 0);
    CHECK(strstr(text, "--action") && strstr(text, "--get-restore-tid"));
}

TEST(bad_command_lines)
{
    static const char *const bad[] = {"",
                                      "--get-state",
                                      "--get-state --pid 0",
                                      "--get-state --pid x",
                                      "--action dance --pid 1",
                                      "--get-state --toggle --pid 1",
                                      "--get-state --pid 1 more",
                                      "--action lock --pid 1 --timeout x",
                                      "--action restore --pid 1 --device-map a=b",
                                      "--launch-job"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_INT(call(0, bad[i]), 1);
        CHECK(text[0] != '\0');
    }
}
