/* Over tests/golden/images, whose standard streams are pipes to outside; see test_images.c. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/stdio.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static int open_golden(void)
{
    char path[512];
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    (void)snprintf(path, sizeof(path), "%s/tests/golden/images", root);
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK(fd >= 0);
    return fd;
}

TEST(pipes_that_lead_out_of_the_tree_are_found)
{
    struct err err = ERR_INIT;
    struct cr_stdio s;
    CLEANUP(fd_closep) int dir = open_golden();
    CHECK_OK(cr_stdio_load(dir, &s, &err));
    for (int i = 0; i < 3; i++)
        CHECK(s.kind[i] == CR_STREAM_PIPE);
    CHECK(s.pipe[0] == 628618 && s.pipe[1] == 628619 && s.pipe[2] == 628619);
}

TEST(images_that_are_missing_or_damaged_are_errors)
{
    struct err err = ERR_INIT;
    struct cr_stdio s;
    CLEANUP(fd_closep) int golden = open_golden();
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK_RC(cr_stdio_load(dir, &s, &err), RC_NOT_FOUND);
    static const char *const names[] = {"pstree.img", "ids-301.img", "fdinfo-2.img", "files.img"};
    for (size_t bad = 0; bad < ARRAY_LEN(names); bad++) {
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
            CHECK_OK(fs_copy_file(golden, names[i], dir, names[i], 0600, &err));
        CHECK_OK(cr_stdio_load(dir, &s, &err));
        CHECK_OK(fs_write_whole(dir, names[bad], "no image, but words", 19, 0600, &err));
        struct err why = ERR_INIT;
        CHECK_RC(cr_stdio_load(dir, &s, &why), RC_CORRUPT);
    }
}
