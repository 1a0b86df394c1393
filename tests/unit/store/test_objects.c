#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/bundle.h"
#include "store/gc.h"
#include "store/objects.h"
#include "store/pack.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *tmp_dir(void)
{
    static char path[4096];
    struct err err = ERR_INIT;
    (void)snprintf(path, sizeof(path), "%s/tmp", test_dir());
    CHECK_OK(fs_mkdirs(path, 0700, &err));
    return path;
}

static struct store *open_store(void)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CLEANUP(mem_freep) char *url = mem_asprintf("object://%s/objects", test_dir());
    struct store_options o = {.tmp = tmp_dir()};
    CHECK_OK(store_open_with(url, &o, &s, &err));
    CHECK(store_is_remote(s));
    return s;
}

/* The content says which attempt it is from. */
static enum rc make_sized(struct store *s, const char *id, const char *content, size_t padding,
                          bool replace, struct err *err)
{
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata m = {.ours = true, .root_pid = 301};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    buf_adds(&text, content);
    while (text.len < padding)
        buf_adds(&text, content);
    enum rc rc = store_begin(s, id, !replace, &g, err);
    if (!rc)
        rc =
            fs_write_whole(store_staging_fd(g), "pages-1.img", buf_str(&text), text.len, 0600, err);
    if (!rc)
        rc = fs_write_whole(store_staging_fd(g), "core-1.img", content, strlen(content), 0600, err);
    return rc ? rc : store_commit(g, &m, replace, err);
}

static enum rc make(struct store *s, const char *content, bool replace, struct err *err)
{
    return make_sized(s, "c", content, 0, replace, err);
}

/* Either nothing, or one whole checkpoint of one attempt; what it says. */
static char *what_is_there(struct store *s)
{
    struct err err = ERR_INIT;
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    enum rc rc = store_find(s, "c", &e, &err);
    if (rc == RC_NOT_FOUND)
        return NULL;
    CHECK_OK(rc);
    CHECK_OK(store_verify(e, STORE_ALL, 2, NULL, &err));
    CLEANUP(buf_done) struct buf pages = BUF_INIT;
    CLEANUP(buf_done) struct buf core = BUF_INIT;
    CHECK_OK(fs_read_file(store_entry_fd(e), "pages-1.img", 100, &pages, &err));
    CHECK_OK(fs_read_file(store_entry_fd(e), "core-1.img", 100, &core, &err));
    CHECK_STR(buf_str(&pages), buf_str(&core));
    return buf_steal(&pages);
}

static void check_there(struct store *s, const char *one, const char *other)
{
    CLEANUP(mem_freep) char *text = what_is_there(s);
    bool good = text ? (one && strcmp(text, one) == 0) || (other && strcmp(text, other) == 0)
                     : !one || !other;
    if (!good)
        test_fail(__FILE__, __LINE__, "there is '%s'", text ? text : "nothing");
}

/* Directories of stores that have gone. */
static size_t left_in_tmp(void)
{
    size_t n = 0;
    DIR *d = opendir(tmp_dir());
    CHECK(d != NULL);
    for (const struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, "chrek-spool-", 12) == 0;
    (void)closedir(d);
    return n;
}

TEST(what_was_published_is_found_listed_verified_and_deleted)
{
    struct err err = ERR_INIT;
    struct store *s = open_store();
    CHECK_OK(make(s, "one", false, &err));
    check_there(s, "one", "one");
    CHECK_OK(make_sized(s, "a b_xü", "two", 0, false, &err));
    char **ids = NULL;
    CHECK_OK(store_list(s, &ids, &err));
    CHECK_STR(ids[0], "a b_xü");
    CHECK_STR(ids[1], "c");
    CHECK(!ids[2]);
    store_free_ids(ids);
    CHECK_OK(store_delete(s, "c", &err));
    CHECK(!what_is_there(s));
    CHECK_RC(store_delete(s, "c", &err), RC_NOT_FOUND);
    CHECK(left_in_tmp() == 1);
    store_freep(&s);
    CHECK(left_in_tmp() == 0);
}

TEST(a_key_and_its_id_are_one_to_one)
{
    struct err err = ERR_INIT;
    char key[BACKEND_KEY_MAX + 1], id[256];
    static const char *const ids[] = {"c", "A.b-c_d", "_x", "_x5F", "a_xray", "blank and ü", "a%2"};
    for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
        CHECK_OK(objects_key(ids[i], key, &err));
        CHECK_OK(backend_check_key(key, &err));
        CLEANUP(mem_freep) char *back = objects_id(key);
        CHECK_STR(back, ids[i]);
    }
    CHECK_OK(objects_key("a_xb", key, &err));
    CHECK_STR(key, "a_x5Fxb.tar");
    static const char *const no_keys[] = {"c",        "c.tar.gz", "packs/c.tar",
                                          ".tar",     "_x41.tar", "a_xb.tar",
                                          "_x00.tar", "_x2F.tar", "_x2f.tar"};
    for (size_t i = 0; i < ARRAY_LEN(no_keys); i++)
        CHECK(!objects_id(no_keys[i]));
    CHECK_RC(objects_key("..", key, &err), RC_INVALID);
    memset(id, ' ', 255);
    id[255] = '\0';
    CHECK_RC(objects_key(id, key, &err), RC_INVALID);
}

TEST(a_location_is_an_url)
{
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(mem_freep) char *want = mem_asprintf("object://%s/objects/c.tar", test_dir());
    CLEANUP(mem_freep) char *got = store_location(s, "c");
    CHECK_STR(got, want);
    CHECK(!store_location(s, ".."));
}

TEST(the_first_stays_unless_it_shall_be_replaced)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CHECK_OK(make(s, "one", false, &err));
    CHECK_RC(make(s, "two", false, &err), RC_EXISTS);
    check_there(s, "one", "one");
    CHECK_OK(make(s, "two", true, &err));
    check_there(s, "two", "two");
}

TEST(of_two_that_are_made_at_once_the_first_stays)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_freep) struct store *other = open_store();
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata m = {.ours = true};
    CHECK_OK(store_begin(s, "c", true, &g, &err));
    CHECK_OK(make(other, "first", false, &err));
    CHECK_RC(store_commit(g, &m, false, &err), RC_EXISTS);
    CHECK(strstr(err.msg, "by somebody else meanwhile"));
    check_there(s, "first", "first");
}

/* The bundle's first bytes, documents and a part of a file: its end is lost. */
static void cut(const char *name, off_t to)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/objects/%s", test_dir(), name);
    CHECK(truncate(path, to) == 0);
}

TEST(a_wreck_makes_way)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(make_sized(s, "c", "old", 100000, false, &err));
    cut("c.tar", 90000);
    CHECK_RC(store_find(s, "c", &e, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "'c' cannot be used"));
    CHECK_OK(make(s, "one", false, &err));
    check_there(s, "one", "one");
    cut("c.tar", 600); /* in the first document */
    CHECK_OK(store_delete(s, "c", &err));
    CHECK(!what_is_there(s));
}

TEST(an_object_of_somebody_else_is_no_checkpoint_and_is_never_touched)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/objects/c.tar", test_dir());
    CHECK_OK(backend_put(store_backend(s), "c.tar", "no archive", 10, &err));
    CHECK_RC(store_find(s, "c", &e, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "left alone"));
    CHECK_RC(make(s, "one", false, &err), RC_INVALID);
    CHECK_RC(make(s, "one", true, &err), RC_INVALID);
    CHECK(strstr(err.msg, "left alone"));
    CHECK_RC(store_delete(s, "c", &err), RC_NOT_FOUND);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 100, &text, &err));
    CHECK_STR(buf_str(&text), "no archive");
}

TEST(an_object_that_appears_while_a_checkpoint_is_made_stays)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    for (int replace = 0; replace < 2; replace++) {
        CLEANUP(store_abortp) struct store_staging *g = NULL;
        CLEANUP(metadata_done) struct metadata m = {.ours = true};
        CHECK_OK(store_begin(s, "c", !replace, &g, &err));
        CHECK_OK(backend_put(store_backend(s), "c.tar", "no archive", 10, &err));
        CHECK_RC(store_commit(g, &m, replace, &err), RC_INVALID);
        CHECK_OK(backend_remove(store_backend(s), "c.tar", &err));
    }
}

TEST(a_failure_anywhere_leaves_old_or_new)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CHECK_OK(make(s, "old", false, &err));
    for (unsigned i = 0;; i++) {
        int fds = test_open_fds();
        fault_arm(i, FAULT_FAIL);
        enum rc rc = make(s, "new", true, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK(rc == RC_OK || hit);
        CHECK(test_open_fds() == fds);
        check_there(s, rc ? "old" : "new", "new");
        if (!hit)
            break;
        CHECK_OK(make(s, "old", true, &err));
    }
}

TEST(a_crash_anywhere_leaves_old_or_new)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CHECK_OK(make(s, "old", false, &err));
    for (unsigned i = 0;; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(i, FAULT_CRASH);
            (void)!make(s, "new", true, &err);
            fault_disarm();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        check_there(s, "old", "new");
        if (WEXITSTATUS(status) == 0)
            break;
    }
}

TEST(a_failed_read_is_an_error_and_leaves_nothing)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CHECK_OK(make_sized(s, "c", "some text", 3 * BUNDLE_FIRST, false, &err));
    for (unsigned i = 0;; i++) {
        int fds = test_open_fds();
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        fault_arm(i, FAULT_FAIL);
        enum rc rc = store_find(s, "c", &e, &err);
        if (!rc)
            rc = store_verify(e, STORE_ALL, 1, NULL, &err);
        bool hit = fault_passed() > i;
        fault_disarm();
        CHECK(rc == RC_OK || hit);
        store_entry_freep(&e);
        CHECK(test_open_fds() == fds);
        if (!hit)
            break;
    }
}

static bool has(const struct store_entry *e, const char *name)
{
    return faccessat(store_entry_fd(e), name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

TEST(of_a_big_one_the_files_come_when_they_are_wanted)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(make_sized(s, "c", "some text", 3 * BUNDLE_FIRST, false, &err));
    CHECK_OK(store_find(s, "c", &e, &err));
    CHECK(has(e, "manifest") && !has(e, "core-1.img") && !has(e, "pages-1.img"));
    CHECK(store_entry_metadata(e)->root_pid == 301);
    CHECK_OK(store_entry_fetch(e, &err));
    CHECK(has(e, "core-1.img") && has(e, "pages-1.img"));
    CHECK_OK(store_verify(e, STORE_ALL, 1, NULL, &err));
    store_entry_freep(&e);

    CHECK_OK(make_sized(s, "small", "some text", 0, false, &err));
    CHECK_OK(store_find(s, "small", &e, &err));
    CHECK(has(e, "pages-1.img"));
}

TEST(what_is_replaced_meanwhile_stays_readable_for_who_has_found_it)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(make_sized(s, "c", "old", 3 * BUNDLE_FIRST, false, &err));
    CHECK_OK(store_find(s, "c", &e, &err));
    CHECK_OK(make_sized(s, "c", "new", 3 * BUNDLE_FIRST, true, &err));
    CHECK_OK(store_verify(e, STORE_ALL, 1, NULL, &err));
    CLEANUP(buf_done) struct buf core = BUF_INIT;
    CHECK_OK(fs_read_file(store_entry_fd(e), "core-1.img", 100, &core, &err));
    CHECK_STR(buf_str(&core), "old");
}

/* A store whose bundle has one byte changed. */
TEST(changed_bytes_are_found)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(buf_done) struct buf bytes = BUF_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/objects/c.tar", test_dir());
    CHECK_OK(make(s, "one two three", false, &err));
    CHECK_OK(fs_read_file(AT_FDCWD, path, 1 << 20, &bytes, &err));
    char *at = memmem(bytes.data, bytes.len, "one two three", 13);
    CHECK(at != NULL);
    at[4] = 'T';
    CHECK_OK(fs_write_whole(AT_FDCWD, path, bytes.data, bytes.len, 0600, &err));
    CHECK_OK(store_find(s, "c", &e, &err));
    CHECK_RC(store_verify(e, STORE_ALL, 1, NULL, &err), RC_CORRUPT);
    store_entry_freep(&e);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, bytes.data, bytes.len / 2, 0600, &err));
    CHECK_RC(store_find(s, "c", &e, &err), RC_CORRUPT);
}

/* ---- packs and holds ---- */

static void put_pack(struct store *s, char digit)
{
    struct err err = ERR_INIT;
    char name[MEMORY_PACK_NAME_LEN + 1], key[PACK_KEY_LEN];
    memset(name, digit, MEMORY_PACK_NAME_LEN);
    name[MEMORY_PACK_NAME_LEN] = '\0';
    pack_key(name, key);
    CHECK_OK(backend_put(store_backend(s), key, "pack", 4, &err));
}

/* A checkpoint whose memory map names the pack 'a'. */
static void make_packed(struct store *s)
{
    struct err err = ERR_INIT;
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata m = {.ours = true};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct memory_pack pack = {.size = 4};
    struct memory map = {.packs = &pack, .n_packs = 1};
    memset(pack.name, 'a', MEMORY_PACK_NAME_LEN);
    memory_format(&map, &text);
    CHECK_OK(store_begin(s, "c", false, &g, &err));
    CHECK_OK(fs_write_whole(store_staging_fd(g), MEMORY_NAME, text.data, text.len, 0600, &err));
    CHECK_OK(store_commit(g, &m, true, &err));
}

TEST(packs_that_no_bundle_names_are_collected)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    struct store_collected c = {0};
    put_pack(s, 'a');
    put_pack(s, 'b');
    make_packed(s);
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(c.packs == 1 && c.kept == 1);
    CHECK_OK(store_delete(s, "c", &err));
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(c.packs == 1 && c.kept == 0);
}

static bool is_there(struct store *s, const char *key)
{
    struct backend_info info;
    return backend_stat(store_backend(s), key, &info, NULL) == RC_OK;
}

static void put_record(struct store *s, const char *key)
{
    struct err err = ERR_INIT;
    CHECK_OK(backend_put(store_backend(s), key, "record", 6, &err));
}

TEST(what_restores_have_recorded_goes_with_its_checkpoint)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    struct store_collected c = {0};
    put_pack(s, 'a');
    make_packed(s);
    put_record(s, "workingset/c");
    put_record(s, "workingset/gone_x2B");
    put_record(s, "workingset/no_x2b"); /* no key that we would write */
    CHECK_OK(store_gc(s, true, &c, &err));
    CHECK(is_there(s, "workingset/gone_x2B"));
    CHECK_OK(store_gc(s, false, &c, &err));
    CHECK(is_there(s, "workingset/c") && !is_there(s, "workingset/gone_x2B"));
    CHECK(is_there(s, "workingset/no_x2b"));
    CHECK_OK(store_delete(s, "c", &err));
    CHECK(!is_there(s, "workingset/c"));
}

TEST(a_damaged_record_is_none)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(workingset_done) struct workingset w = WORKINGSET_INIT;
    put_pack(s, 'a');
    make_packed(s);
    CHECK_OK(store_find(s, "c", &e, &err));
    CHECK_RC(store_entry_workingset(e, &w, &err), RC_NOT_FOUND);
    put_record(s, "workingset/c");
    CHECK_RC(store_entry_workingset(e, &w, &err), RC_CORRUPT);
}

TEST(nothing_is_collected_while_somebody_makes_a_checkpoint)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_freep) struct store *other = open_store();
    struct store_hold *a = NULL, *b = NULL, *c = NULL;
    struct store_collected n = {0};
    put_pack(s, 'b');
    CHECK_OK(store_hold_packs(s, false, &a, &err));
    CHECK_OK(store_hold_packs(other, false, &b, &err));
    CHECK_OK(store_hold_check(a, &err));
    CHECK_RC(store_gc(other, false, &n, &err), RC_UNAVAILABLE);
    CHECK(strstr(err.msg, "makes a checkpoint in"));
    store_hold_freep(&a);
    CHECK_RC(store_hold_packs(s, true, &c, &err), RC_UNAVAILABLE);
    store_hold_freep(&b);
    CHECK_OK(store_hold_packs(s, true, &c, &err));
    CHECK_RC(store_hold_packs(other, true, &b, &err), RC_UNAVAILABLE);
    CHECK(strstr(err.msg, "collects packs of"));
    store_hold_freep(&c);
    CHECK_OK(store_gc(other, false, &n, &err));
    CHECK(n.packs == 1);
}

TEST(a_capture_waits_for_a_collector)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    struct store_hold *alone = NULL, *shared = NULL;
    CHECK_OK(store_hold_packs(s, true, &alone, &err));
    pid_t pid = fork();
    if (pid == 0) {
        struct timespec t = {0, 300000000};
        (void)nanosleep(&t, NULL);
        store_hold_freep(&alone);
        _exit(0);
    }
    CHECK_OK(store_hold_packs(s, false, &shared, &err));
    CHECK(waitpid(pid, NULL, 0) == pid);
    store_hold_freep(&shared);
    store_hold_freep(&alone);
}

TEST(the_hold_of_a_dead_capture_ends)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    struct store_hold *alone = NULL;
    char key[BACKEND_KEY_MAX];
    (void)snprintf(key, sizeof(key), "holds/shared-%012lld-0", (long long)time(NULL) - 3600);
    CHECK_OK(backend_put(store_backend(s), key, "\033[31m", 5, &err));
    CHECK_RC(store_hold_packs(s, true, &alone, &err), RC_UNAVAILABLE);
    CHECK(strstr(err.msg, "?[31m makes a checkpoint") && strstr(err.msg, "since 60 minutes"));
    CHECK_OK(backend_remove(store_backend(s), key, &err));
    (void)snprintf(key, sizeof(key), "holds/shared-%012lld-0",
                   (long long)time(NULL) - (long long)HOLD_SHARED_S - 2);
    CHECK_OK(backend_put(store_backend(s), key, "x", 1, &err));
    CHECK_OK(store_hold_packs(s, true, &alone, &err));
    store_hold_freep(&alone);
    CHECK_RC(backend_remove(store_backend(s), key, &err), RC_NOT_FOUND);
}

/* ---- spool ---- */

TEST(the_spool_of_a_dead_process_is_removed_by_the_next)
{
    struct err err = ERR_INIT;
    pid_t pid = fork();
    if (pid == 0) {
        (void)open_store();
        _exit(0);
    }
    CHECK(waitpid(pid, NULL, 0) == pid);
    CHECK(left_in_tmp() == 1);
    DIR *d = opendir(tmp_dir());
    CHECK(d != NULL);
    struct timespec old[2] = {{time(NULL) - 60, 0}, {time(NULL) - 60, 0}};
    for (const struct dirent *e; (e = readdir(d));)
        if (e->d_name[0] != '.')
            CHECK(utimensat(dirfd(d), e->d_name, old, 0) == 0);
    (void)closedir(d);
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_freep) struct store *second = open_store();
    CHECK(left_in_tmp() == 2);
    CHECK_OK(make(s, "one", false, &err));
}

TEST(a_place_that_cannot_be_used_is_named)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CLEANUP(mem_freep) char *url = mem_asprintf("object://%s/objects", test_dir());
    CLEANUP(mem_freep) char *absent = mem_asprintf("%s/absent", test_dir());
    struct store_options o = {.tmp = absent};
    CHECK_RC(store_open_with(url, &o, &s, &err), RC_NOT_FOUND);
    CHECK(strstr(err.msg, "absent"));
    CHECK_RC(store_open("ftp://x/y", &s, &err), RC_UNSUPPORTED);
}
