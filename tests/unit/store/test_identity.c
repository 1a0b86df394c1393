#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/gc.h"
#include "store/identity.h"
#include "store/pack.h"
#include "store/retention.h"
#include "unit/store/checkpoints.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SOME 5U

/* A file in test_dir(), with the directories that lead to it. */
static void put_bytes(const char *path, const void *data, size_t len)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s/%s", test_dir(), path);
    CLEANUP(mem_freep) char *dir = mem_strdup(whole);
    *strrchr(dir, '/') = '\0';
    CHECK_OK(fs_mkdirs(dir, 0700, &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, whole, data, len, 0600, &err));
}

static void put(const char *path, const char *text)
{
    put_bytes(path, text, strlen(text));
}

static void check_text(const char *path, const char *want)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *whole = mem_asprintf("%s/%s", test_dir(), path);
    CHECK_OK(fs_read_file(AT_FDCWD, whole, 1000, &text, &err));
    CHECK_STR(buf_str(&text), want);
}

static void make_old(const char *name)
{
    struct timespec then[2] = {{.tv_sec = time(NULL) - 3600}, {.tv_sec = time(NULL) - 3600}};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", test_dir(), name);
    CHECK(utimensat(AT_FDCWD, path, then, AT_SYMLINK_NOFOLLOW) == 0);
}

static enum identity identity(const char *name)
{
    struct err err = ERR_INIT;
    enum identity i = IDENTITY_NOTHING;
    CLEANUP(fd_closep) int base = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(identity_of(base, name, &i, &err));
    return i;
}

TEST(one_document_with_its_own_content_makes_a_checkpoint)
{
    static const char inventory[] = {0x16, 0x31, 0x31, 0x58, 1};
    static const struct {
        const char *file, *text;
    } ours[] = {
        {"checkpoint.done", "{\"checkpoint_id\": \"a\", \"success\": false}"},
        {"manifest", "{\"format\": 99, \"files\": []}"},
        {"metadata.json", "{\"checkpoint_id\": \"a\", \"criu_options\": {}}"},
        {"metadata.json", "{\"chrek\": {}}"},
        {"metadata.json", "{\n  \"checkpoint_id\": \"cut o"},
        {"manifest", "{\n  \"format\": 1,\n  \"files\": ["},
        {"memory", "chrekmem and damaged"},
    };
    char name[32], path[64];
    for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
        (void)snprintf(name, sizeof(name), "ours-%zu", i);
        (void)snprintf(path, sizeof(path), "%s/%s", name, ours[i].file);
        put(path, ours[i].text);
        CHECK_INT(identity(name), IDENTITY_CHECKPOINT);
    }
    put_bytes("criu/inventory.img", inventory, sizeof(inventory));
    CHECK_INT(identity("criu"), IDENTITY_CHECKPOINT);
}

TEST(whatever_else_is_there_is_foreign)
{
    static const struct {
        const char *file, *text;
    } theirs[] = {
        {"thesis.tex", "\\begin{document}"},
        {"checkpoint.done", "yes"},
        {"checkpoint.done", "{\"epoch\": 3}"},
        {"metadata.json", "{\"checkpoint_id\": \"step-1000\", \"loss\": 0.1}"},
        {"manifest", "Manifest-Version: 1.0"},
        {"manifest", "{\"files\": {}}"},
        {"metadata.json", "{\n  \"checkpoint_id\": \"step-1\"\n}"},
        {"memory", "of a summer"},
        {"memory", "chrek"},
        {"inventory.img", "a disk"},
        {"checkpoint.done/manifest", "{\"format\": 1, \"files\": []}"},
        {".hidden", ""},
    };
    char name[32], path[64];
    for (size_t i = 0; i < ARRAY_LEN(theirs); i++) {
        (void)snprintf(name, sizeof(name), "theirs-%zu", i);
        (void)snprintf(path, sizeof(path), "%s/%s", name, theirs[i].file);
        put(path, theirs[i].text);
        CHECK_INT(identity(name), IDENTITY_FOREIGN);
    }
    put("file", "no directory");
    CHECK_INT(identity("file"), IDENTITY_FOREIGN);
    CLEANUP(mem_freep) char *link = mem_asprintf("%s/link", test_dir());
    CHECK(symlink("theirs-0", link) == 0);
    CHECK_INT(identity("link"), IDENTITY_FOREIGN);
    CLEANUP(mem_freep) char *fifo = mem_asprintf("%s/theirs-0/memory", test_dir());
    CHECK(mkfifo(fifo, 0600) == 0);
    CHECK_INT(identity("theirs-0"), IDENTITY_FOREIGN);
}

TEST(an_empty_directory_is_nothing)
{
    CLEANUP(mem_freep) char *dir = mem_asprintf("%s/empty", test_dir());
    CHECK(mkdir(dir, 0700) == 0);
    CHECK_INT(identity("empty"), IDENTITY_NOTHING);
    CHECK_INT(identity("absent"), IDENTITY_NOTHING);
}

TEST(a_failure_to_look_is_no_answer)
{
    CLEANUP(fd_closep) int base = sys_openat(AT_FDCWD, test_dir(), O_RDONLY | O_DIRECTORY, 0);
    put("ours/memory", "chrekmem");
    for (unsigned k = 0;; k++) {
        enum identity i = IDENTITY_COUNT_;
        fault_arm(k, FAULT_FAIL);
        enum rc rc = identity_of(base, "ours", &i, NULL);
        bool hit = fault_passed() > k;
        fault_disarm();
        CHECK_INT(i, rc ? IDENTITY_COUNT_ : IDENTITY_CHECKPOINT);
        if (!hit)
            break;
        CHECK(rc);
    }
}

TEST(a_staging_name_is_known_and_no_other)
{
    static const char *const others[] = {"photos.tmp-backup", "photos.tmp-0123abcd", ".tmp-",
                                         "photos.tmp-0123456789abcdef", "photos.tmp-0123ABCD"};
    char long_id[256];
    memset(long_id, 'x', 255);
    long_id[255] = '\0';
    CLEANUP(mem_freep) char *name = identity_staging_name("web");
    CLEANUP(mem_freep) char *long_name = identity_staging_name(long_id);
    CHECK(strncmp(name, "web.tmp-", 8) == 0);
    CHECK(identity_is_staging(name) && identity_is_staging(long_name));
    CHECK(strlen(long_name) <= 255);
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        CHECK(!identity_is_staging(others[i]));
    name[0] = 'W'; /* renamed by somebody */
    CHECK(!identity_is_staging(name));
}

/* ---- a store among other things ---- */

static void check_untouched(void)
{
    check_text("thesis/t.tex", "years of work");
    check_text("notes", "a file");
    check_text("build.tmp-0123abcd/out", "of a compiler");
    check_text("build.tmp-0123456789abcdef/out", "of a compiler");
    check_text("java/manifest", "Manifest-Version: 1.0");
    check_text("packs/photos/0123456789abcdef0123456789abcdef", "a photo");
    check_text("packs/IM/IMG_20240101_120000_by_my_mother", "a photo");
}

static struct store *open_among_others(void)
{
    put("thesis/t.tex", "years of work");
    put("notes", "a file");
    put("build.tmp-0123abcd/out", "of a compiler");
    put("build.tmp-0123456789abcdef/out", "of a compiler");
    make_old("build.tmp-0123abcd");
    make_old("build.tmp-0123456789abcdef");
    put("java/manifest", "Manifest-Version: 1.0");
    put("packs/photos/0123456789abcdef0123456789abcdef", "a photo");
    put("packs/IM/IMG_20240101_120000_by_my_mother", "a photo");
    return checkpoints_open();
}

TEST(what_others_keep_in_a_store_is_not_listed_found_or_deleted)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_among_others();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    static const char *const names[] = {"thesis", "notes", "java"};
    char **ids = NULL;
    CHECK_OK(checkpoint_make(s, "c", 1000, SOME, &err));
    CHECK_OK(store_list(s, &ids, &err));
    CHECK(ids[0] && !ids[1]);
    CHECK_STR(ids[0], "c");
    store_free_ids(ids);
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CHECK_RC(store_find(s, names[i], &e, &err), RC_NOT_FOUND);
        CHECK(strstr(err.msg, "left alone"));
        CHECK_RC(store_delete(s, names[i], &err), RC_NOT_FOUND);
        CHECK(strstr(err.msg, "left alone"));
    }
    check_untouched();
}

TEST(a_checkpoint_is_not_made_where_something_else_is)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_among_others();
    static const char *const names[] = {"thesis", "notes", "java"};
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        CHECK_RC(checkpoint_make(s, names[i], 1000, SOME, &err), RC_INVALID);
        CHECK(strstr(err.msg, "left alone"));
    }
    check_untouched();
}

TEST(what_appears_while_a_checkpoint_is_made_stays)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_among_others();
    for (int replace = 0; replace < 2; replace++) {
        CLEANUP(store_abortp) struct store_staging *g = NULL;
        CLEANUP(metadata_done) struct metadata m = {.ours = true};
        CHECK_OK(store_begin(s, replace ? "b" : "a", !replace, &g, &err));
        put(replace ? "b/new" : "a/new", "just written");
        CHECK_RC(store_commit(g, &m, replace, &err), RC_INVALID);
    }
    check_text("a/new", "just written");
    check_text("b/new", "just written");
}

TEST(a_collection_and_retention_take_nothing_that_is_not_theirs)
{
    struct err err = ERR_INIT;
    struct store_collected c;
    struct retention last = {.keep_last = 1};
    char **gone = NULL;
    CLEANUP(store_freep) struct store *s = open_among_others();
    CHECK_OK(checkpoint_make(s, "one", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "two", 5000, SOME, &err));
    CHECK_OK(store_retire(s, &last, false, &gone, &err));
    CHECK(gone[0] && !gone[1]);
    store_free_ids(gone);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK_INT(c.packs, 1);
    CHECK_INT(c.kept, 1);
    check_untouched();
}

TEST(a_wreck_and_an_empty_directory_make_way)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(mem_freep) char *empty = mem_asprintf("%s/empty", test_dir());
    put("wreck/metadata.json", "{\"checkpoint_id\": \"wreck\", \"criu_options\": {}}");
    put("wreck/core-1.img", "half");
    CHECK(mkdir(empty, 0700) == 0);
    CHECK_OK(checkpoint_make(s, "wreck", 1000, SOME, &err));
    CHECK_OK(checkpoint_make(s, "empty", 1000, SOME, &err));
    CHECK_OK(checkpoint_check(s, "wreck", 1000, SOME, &err));
    CHECK_OK(checkpoint_check(s, "empty", 1000, SOME, &err));
}

TEST(a_wreck_can_be_deleted)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    put("wreck/checkpoint.done", "{\"success\": false}");
    put("wreck/dump.log", "Error");
    CHECK_OK(store_delete(s, "wreck", &err));
    CHECK_INT(identity("wreck"), IDENTITY_NOTHING);
}

TEST(staging_directories_of_the_dead_are_swept_whatever_they_hold)
{
    CLEANUP(store_freep) struct store *s = checkpoints_open();
    CLEANUP(mem_freep) char *name = identity_staging_name("web");
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/pages-1.img", name);
    put(path, "memory");
    CHECK_INT(store_sweep(s), 1); /* too young to tell */
    CHECK(identity(name) != IDENTITY_NOTHING);
    make_old(name);
    CHECK_INT(store_sweep(s), 0);
    CHECK_INT(identity(name), IDENTITY_NOTHING);
}
