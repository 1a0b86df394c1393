#include "backend/drivers.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/bundle.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int make_dir(const char *name)
{
    int base = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK(mkdirat(base, name, 0700) == 0);
    int fd = sys_openat(base, name, O_RDONLY | O_DIRECTORY, 0);
    CHECK(base >= 0 && fd >= 0);
    fd_closep(&base);
    return fd;
}

static void write_file(int dir, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    CHECK_OK(fs_write_whole(dir, name, text, strlen(text), 0600, &err));
}

static void check_file(int dir, const char *name, const char *text)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf got = BUF_INIT;
    CHECK_OK(fs_read_file(dir, name, 100, &got, &err));
    CHECK_STR(buf_str(&got), text);
}

static enum rc read_all(struct backend *b, const char *key, int dir, struct err *err)
{
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    bool all = false;
    enum rc rc = backend_open(b, key, &o, err);
    if (!rc)
        rc = bundle_read(o, BUNDLE_ALL, dir, &all, err);
    CHECK(rc || all);
    return rc;
}

TEST(files_come_back_as_they_went)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(fd_closep) int from = make_dir("from");
    CLEANUP(fd_closep) int to = make_dir("to");
    CHECK_OK(backend_mem_open(&b, &err));
    write_file(from, "core-1.img", "core");
    write_file(from, "manifest", "m");
    write_file(from, "empty", "");
    CHECK(mkdirat(from, "directory", 0700) == 0);
    CHECK_OK(bundle_write(from, b, "c.tar", false, &err));
    CHECK_RC(bundle_write(from, b, "c.tar", false, &err), RC_EXISTS);
    CHECK_OK(bundle_write(from, b, "c.tar", true, &err));
    CHECK_OK(read_all(b, "c.tar", to, &err));
    check_file(to, "core-1.img", "core");
    check_file(to, "manifest", "m");
    check_file(to, "empty", "");
    CHECK(faccessat(to, "directory", F_OK, 0) < 0);
}

/* An archive with one member, put under a key. */
struct member {
    const char *name, *link;
    unsigned type;
    bool hard;
};

static void put_archive(struct backend *b, const char *key, const struct member *members, size_t n)
{
    static char bytes[1 << 16];
    struct err err = ERR_INIT;
    size_t used = 0;
    struct archive *a = archive_write_new();
    CHECK(archive_write_set_format_pax(a) == ARCHIVE_OK);
    CHECK(archive_write_open_memory(a, bytes, sizeof(bytes), &used) == ARCHIVE_OK);
    for (size_t i = 0; i < n; i++) {
        struct archive_entry *e = archive_entry_new();
        archive_entry_set_pathname(e, members[i].name);
        archive_entry_set_filetype(e, members[i].type);
        archive_entry_set_perm(e, 0600);
        if (members[i].hard)
            archive_entry_set_hardlink(e, members[i].link);
        else if (members[i].link)
            archive_entry_set_symlink(e, members[i].link);
        archive_entry_set_size(e, members[i].type == AE_IFREG && !members[i].hard ? 4 : 0);
        CHECK(archive_write_header(a, e) == ARCHIVE_OK);
        if (members[i].type == AE_IFREG && !members[i].hard)
            CHECK(archive_write_data(a, "evil", 4) == 4);
        archive_entry_free(e);
    }
    CHECK(archive_write_close(a) == ARCHIVE_OK);
    (void)archive_write_free(a);
    CHECK_OK(backend_put(b, key, bytes, used, &err));
}

TEST(hostile_archives_are_refused)
{
    static const struct {
        const char *key;
        struct member member;
        const char *want;
    } cases[] = {
        {"absolute", {"/etc/passwd", NULL, AE_IFREG, false}, "bad name"},
        {"up", {"../x", NULL, AE_IFREG, false}, "bad name"},
        {"deep", {"a/b", NULL, AE_IFREG, false}, "bad name"},
        {"hidden", {".x", NULL, AE_IFREG, false}, "bad name"},
        {"directory", {"d", NULL, AE_IFDIR, false}, ""},
        {"symlink", {"l", "/etc/passwd", AE_IFLNK, false}, "no plain file"},
        {"hardlink", {"l", "/etc/passwd", AE_IFREG, true}, "no plain file"},
        {"device", {"n", NULL, AE_IFCHR, false}, "no plain file"},
        {"fifo", {"f", NULL, AE_IFIFO, false}, "no plain file"},
    };
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(fd_closep) int to = make_dir("to");
    CHECK_OK(backend_mem_open(&b, &err));
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        put_archive(b, cases[i].key, &cases[i].member, 1);
        CHECK_RC(read_all(b, cases[i].key, to, &err), RC_CORRUPT);
        if (!strstr(err.msg, cases[i].want))
            test_fail(__FILE__, __LINE__, "case %s said '%s'", cases[i].key, err.msg);
    }
}

TEST(a_name_may_be_there_once)
{
    static const struct member twice[] = {{"x", NULL, AE_IFREG, false},
                                          {"x", NULL, AE_IFREG, false}};
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(fd_closep) int to = make_dir("to");
    CHECK_OK(backend_mem_open(&b, &err));
    put_archive(b, "x.tar", twice, 2);
    CHECK_RC(read_all(b, "x.tar", to, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "twice"));
}

/* Whoever waits there for us to write through his link. */
TEST(a_link_in_the_directory_is_not_followed)
{
    struct err err = ERR_INIT;
    static const struct member one = {"x", NULL, AE_IFREG, false};
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(fd_closep) int to = make_dir("to");
    CHECK_OK(backend_mem_open(&b, &err));
    put_archive(b, "x.tar", &one, 1);
    CHECK(symlinkat("../outside", to, "x") == 0);
    CHECK_RC(read_all(b, "x.tar", to, &err), RC_CORRUPT);
    CHECK(faccessat(to, "../outside", F_OK, 0) < 0);
}

/* A GNU sparse member claims a size that the archive does not have. */
TEST(a_member_that_claims_more_than_all_is_refused)
{
    static char tar[512 * 20];
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(fd_closep) int to = make_dir("to");
    CHECK_OK(backend_mem_open(&b, &err));
    char *h = tar;
    memcpy(h, "bomb", 5);
    memcpy(h + 100, "0000600", 8);
    memcpy(h + 124, "00000000000", 12); /* stored: nothing */
    h[156] = 'S';                       /* GNU sparse */
    memcpy(h + 257, "ustar  ", 8);
    memcpy(h + 386, "77777777777", 12); /* offset of the one region */
    memcpy(h + 398, "00000000000", 12); /* of no bytes */
    memcpy(h + 483, "77777777777", 12); /* 8 GiB in all */
    memset(h + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)h[i];
    for (int i = 5; i >= 0; i--, sum /= 8)
        h[148 + i] = (char)('0' + sum % 8);
    h[154] = '\0';
    CHECK_OK(backend_put(b, "bomb.tar", tar, sizeof(tar), &err));
    CHECK_RC(read_all(b, "bomb.tar", to, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "claims to be larger"));
}

TEST(documents_come_with_the_first_read)
{
    struct err err = ERR_INIT;
    static char big[BUNDLE_FIRST + 1];
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(fd_closep) int from = make_dir("from");
    CLEANUP(fd_closep) int to = make_dir("to");
    bool all = true;
    CHECK_OK(backend_mem_open(&b, &err));
    write_file(from, "a", "a");
    write_file(from, "checkpoint.done", "d");
    write_file(from, "manifest", "m");
    write_file(from, "metadata.json", "j");
    CHECK_OK(fs_write_whole(from, "big", big, sizeof(big), 0600, &err));
    CHECK_OK(bundle_write(from, b, "c.tar", false, &err));
    CHECK_OK(backend_open(b, "c.tar", &o, &err));
    CHECK_OK(bundle_read(o, BUNDLE_DOCUMENTS, to, &all, &err));
    CHECK(!all);
    check_file(to, "manifest", "m");
    check_file(to, "metadata.json", "j");
    check_file(to, "checkpoint.done", "d");
    CHECK(faccessat(to, "a", F_OK, 0) < 0);
    CHECK_OK(bundle_read(o, BUNDLE_ALL, to, &all, &err));
    CHECK(all);
    check_file(to, "a", "a");
}

TEST(an_archive_that_is_cut_off_anywhere_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = NULL;
    CLEANUP(backend_closep) struct backend_object *o = NULL;
    CLEANUP(fd_closep) int from = make_dir("from");
    static char text[5000], bytes[1 << 15];
    CHECK_OK(backend_mem_open(&b, &err));
    memset(text, 'x', sizeof(text) - 1);
    write_file(from, "a", text);
    CHECK_OK(bundle_write(from, b, "c.tar", false, &err));
    CHECK_OK(backend_open(b, "c.tar", &o, &err));
    CHECK(o->size < sizeof(bytes));
    CHECK_OK(backend_read(o, 0, bytes, o->size, &err));
    for (size_t n = 1; n < 512 + 5000; n += 97) { /* behind are only the zeros of the end */
        char name[16];
        (void)snprintf(name, sizeof(name), "to-%zu", n);
        CLEANUP(fd_closep) int to = make_dir(name);
        CHECK_OK(backend_put(b, name, bytes, n, &err));
        CHECK_RC(read_all(b, name, to, &err), RC_CORRUPT);
    }
}
