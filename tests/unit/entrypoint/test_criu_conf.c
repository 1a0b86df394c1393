#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "entrypoint/criu_conf.h"
#include "harness/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static void check_lines(const struct settings *s, const char *want)
{
    struct err err = ERR_INIT;
    struct stat st;
    CLEANUP(mem_freep) char *path = NULL;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(criu_conf_write(s, &path, &err));
    CHECK(strncmp(path, s->work_dir, strlen(s->work_dir)) == 0);
    CHECK_STR(path + strlen(s->work_dir), "/restore-criu.conf");
    CHECK(stat(path, &st) == 0);
    CHECK_INT(st.st_mode & 07777, 0644);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 4096, &text, &err));
    CHECK_STR(buf_str(&text), want);
}

TEST(the_lines_are_the_contracts_in_its_order)
{
    struct settings s = {.work_dir = test_dir(), .cuda_plugin_dir = "/plugins"};
    check_lines(&s, "enable-external-masters\ntcp-close\nlink-remap\n");
    s.has_cuda_plugin = s.skip_in_flight = true;
    s.timeout_s = 21600;
    check_lines(&s, "enable-external-masters\nlibdir /plugins\ntcp-close\nlink-remap\n"
                    "timeout 21600\nallow-uprobes\nskip-in-flight\n");
}

TEST(a_file_that_cannot_be_written_is_an_error)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *none = mem_asprintf("%s/none", test_dir());
    const struct settings s = {.work_dir = none};
    char *path = NULL;
    CHECK_RC(criu_conf_write(&s, &path, &err), RC_NOT_FOUND);
    CHECK(!path && strstr(err.msg, "configuration of CRIU"));
}
