#include "base/compiler.h"
#include "base/sys.h"
#include "entrypoint/log.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

TEST(a_line_has_the_contracts_form)
{
    struct err err = ERR_INIT;
    char text[512];
    size_t n = 0;
    int p[2], end = 0, out = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    CHECK(out >= 0 && pipe2(p, O_CLOEXEC) == 0 && dup2(p[1], STDOUT_FILENO) == STDOUT_FILENO);
    log_info("It \"is\"\n", "plain", "a/b-1.5", "empty", "", "blank", "a b", "bell", "\a", NULL);
    CHECK(dup2(out, STDOUT_FILENO) == STDOUT_FILENO);
    CHECK(close(out) == 0 && close(p[1]) == 0);
    CHECK_OK(sys_read_full(p[0], text, sizeof(text) - 1, &n, &err));
    CHECK(close(p[0]) == 0);
    text[n] = '\0';
    (void)sscanf(text, "time=\"%*4d-%*2d-%*2d %*2d:%*2d:%*2d\" %n", &end);
    CHECK_INT(end, (int)strlen("time=\"2026-01-01 00:00:00\" "));
    CHECK_STR(text + end,
              "level=info msg=\"It \\\"is\\\"\\n\" plain=a/b-1.5 empty=\"\" blank=\"a b\" "
              "bell=\"\\x07\"\n");
}
