#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "exchange/members.h"
#include "harness/test.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *path_of(const char *name)
{
    return mem_asprintf("%s/%s", test_dir(), name);
}

/* An archive of one member "first" and one more. */
static void make(const char *name, const char *second, unsigned kind, const char *link,
                 uint64_t size)
{
    CLEANUP(mem_freep) char *path = path_of(name);
    struct archive *a = archive_write_new();
    struct archive_entry *e = archive_entry_new();
    CHECK(archive_write_set_format_pax_restricted(a) == ARCHIVE_OK);
    if (size > 0) /* what is not given is filled with zeros */
        CHECK(archive_write_add_filter_zstd(a) == ARCHIVE_OK);
    CHECK(archive_write_open_filename(a, path) == ARCHIVE_OK);
    archive_entry_set_pathname(e, "./first");
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0640);
    archive_entry_set_size(e, 5);
    archive_entry_set_mtime(e, 77, 0);
    CHECK(archive_write_header(a, e) == ARCHIVE_OK && archive_write_data(a, "hello", 5) == 5);
    archive_entry_clear(e);
    archive_entry_set_pathname(e, second);
    archive_entry_set_filetype(e, kind);
    archive_entry_set_perm(e, 0600);
    archive_entry_set_size(e, (la_int64_t)size);
    if (link && kind == AE_IFLNK)
        archive_entry_set_symlink(e, link);
    else if (link)
        archive_entry_set_hardlink(e, link);
    (void)archive_write_header(a, e);
    archive_entry_free(e);
    (void)archive_write_free(a);
}

static enum rc note(void *arg, const struct member *m, struct member_data *d, struct err *err)
{
    char data[16];
    size_t n = 0;
    enum rc rc = member_read(d, data, sizeof(data), &n, err);
    buf_addf(arg, "%s %ju %o %jd %.*s;", m->path, (uintmax_t)m->size, m->mode, (intmax_t)m->mtime,
             (int)n, data);
    return rc;
}

static enum rc look(const char *name, struct buf *seen)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = path_of(name);
    return members_each(path, note, seen, &err);
}

TEST(members_are_shown_with_clean_paths)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf seen = BUF_INIT;
    make("a.tar", "folder/", AE_IFDIR, NULL, 0);
    CHECK_OK(look("a.tar", &seen));
    CHECK_STR(buf_str(&seen), "first 5 640 77 hello;");
    buf_cut(&seen, 0);
    make("b.tar", "folder/second", AE_IFREG, NULL, 0);
    CHECK_OK(look("b.tar", &seen));
    CHECK(strstr(buf_str(&seen), "folder/second 0 600"));
}

TEST(what_reaches_outside_is_refused)
{
    struct err err = ERR_INIT;
    static const char *const bad[] = {
        "../x", "/x", "a/../x", "a//x", "a/./x", "a\nb", "1/2/3/4/5/6/7/8/9/10"};
    CLEANUP(buf_done) struct buf seen = BUF_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        make("bad.tar", bad[i], AE_IFREG, NULL, 0);
        CHECK_RC(look("bad.tar", &seen), RC_CORRUPT);
        CHECK_RC(members_check_path(bad[i], &err), RC_CORRUPT);
    }
    CHECK_RC(members_check_path("./x", &err), RC_CORRUPT);
    CHECK_RC(members_check_path("", &err), RC_CORRUPT);
    CHECK_OK(members_check_path("a/b.c", &err));
}

TEST(what_is_no_file_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf seen = BUF_INIT;
    make("bad.tar", "x", AE_IFLNK, "/etc/passwd", 0);
    CHECK_RC(look("bad.tar", &seen), RC_CORRUPT);
    make("bad.tar", "x", AE_IFREG, "first", 0);
    CHECK_RC(look("bad.tar", &seen), RC_CORRUPT);
    make("bad.tar", "x", AE_IFIFO, NULL, 0);
    CHECK_RC(look("bad.tar", &seen), RC_CORRUPT);
    make("bad.tar", "x", AE_IFCHR, NULL, 0);
    CHECK_RC(look("bad.tar", &seen), RC_CORRUPT);
}

TEST(more_than_an_archive_can_hold_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf seen = BUF_INIT;
    make("bomb.tar", "x", AE_IFREG, NULL, (uint64_t)100 << 20);
    CHECK_RC(look("bomb.tar", &seen), RC_TOO_BIG);
}

TEST(what_is_no_archive_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf seen = BUF_INIT;
    CLEANUP(mem_freep) char *text = path_of("text");
    CHECK_OK(fs_write_whole(AT_FDCWD, text, "no archive", 10, 0600, &err));
    CHECK_RC(look("text", &seen), RC_CORRUPT);
    CHECK_OK(fs_write_whole(AT_FDCWD, text, "", 0, 0600, &err));
    CHECK_RC(look("text", &seen), RC_CORRUPT);
    CHECK_RC(look("absent", &seen), RC_NOT_FOUND);
    CHECK_INT(seen.len, 0);
}

TEST(a_directory_is_shown_by_name)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf seen = BUF_INIT;
    CLEANUP(mem_freep) char *dir = path_of("tree/checkpoint");
    CLEANUP(mem_freep) char *one = path_of("tree/z");
    CLEANUP(mem_freep) char *two = path_of("tree/checkpoint/a");
    CLEANUP(mem_freep) char *link = path_of("tree/link");
    CHECK_OK(fs_mkdirs(dir, 0700, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, one, "1", 1, 0600, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, two, "22", 2, 0600, &err));
    CHECK_OK(look("tree", &seen));
    const char *first = strstr(buf_str(&seen), "checkpoint/a 2"),
               *last = strstr(buf_str(&seen), "z 1");
    CHECK(first && last && first < last);
    CHECK(symlink("/etc/passwd", link) == 0);
    CHECK_RC(look("tree", &seen), RC_CORRUPT);
}
