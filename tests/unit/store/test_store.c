#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "harness/test.h"
#include "store/done.h"
#include "store/store.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct store *open_store(void)
{
    struct err err = ERR_INIT;
    struct store *s = NULL;
    CHECK_OK(store_open(test_dir(), &s, &err));
    return s;
}

/* The content says which attempt it is from. */
static enum rc make(struct store *s, const char *content, bool replace, struct err *err)
{
    CLEANUP(store_abortp) struct store_staging *g = NULL;
    CLEANUP(metadata_done) struct metadata m = {.ours = true, .root_pid = 301};
    enum rc rc = store_begin(s, "c", !replace, &g, err);
    if (!rc)
        rc =
            fs_write_whole(store_staging_fd(g), "pages-1.img", content, strlen(content), 0600, err);
    if (!rc)
        rc = fs_write_whole(store_staging_fd(g), "core-1.img", content, strlen(content), 0600, err);
    return rc ? rc : store_commit(g, &m, replace, err);
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

TEST(what_was_published_is_found_and_verified)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CHECK_OK(make(s, "one", false, &err));
    CLEANUP(mem_freep) char *text = what_is_there(s);
    CHECK_STR(text, "one");
    char **ids = NULL;
    CHECK_OK(store_list(s, &ids, &err));
    CHECK_STR(ids[0], "c");
    CHECK(!ids[1]);
    store_free_ids(ids);
    CHECK_OK(store_delete(s, "c", &err));
    CHECK(!what_is_there(s));
    CHECK_RC(store_delete(s, "c", &err), RC_NOT_FOUND);
}

TEST(a_digest_that_was_told_is_the_one_that_counts)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    for (unsigned wrong = 0; wrong < 2; wrong++) {
        CLEANUP(store_abortp) struct store_staging *g = NULL;
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        CLEANUP(metadata_done) struct metadata m = {.ours = true, .root_pid = 301};
        struct digest d;
        CHECK_OK(store_begin(s, "c", false, &g, &err));
        store_staging_follow(g);
        CHECK_OK(fs_write_whole(store_staging_fd(g), "pages-1.img", "one", 3, 0600, &err));
        store_staging_settled(g);
        digest_file_bytes(wrong ? "two" : "one", 3, &d);
        store_staging_digest(g, "pages-1.img", 3, &d);
        CHECK_OK(store_commit(g, &m, true, &err));
        CHECK_OK(store_find(s, "c", &e, &err));
        CHECK_RC(store_verify(e, STORE_ALL, 1, NULL, &err), wrong ? RC_CORRUPT : RC_OK);
    }
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
        CHECK(rc == RC_OK || hit); /* not every failing call matters: a sweep's do not */
        CHECK(test_open_fds() == fds);
        check_there(s, "old", "new");
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

TEST(a_first_attempt_that_crashes_leaves_nothing_or_all)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    for (unsigned i = 0;; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            fault_arm(i, FAULT_CRASH);
            (void)!make(s, "new", false, &err);
            fault_disarm();
            _exit(0);
        }
        int status = 0;
        CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
        check_there(s, NULL, "new");
        if (WEXITSTATUS(status) == 0)
            break;
        (void)!store_delete(s, "c", &err);
    }
}

static void spoil(const char *file, const char *text)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/c/%s", test_dir(), file);
    if (text)
        CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0600, &err));
    else
        CHECK(unlink(path) == 0);
}

TEST(what_is_not_whole_is_refused_with_the_reason)
{
    static const struct {
        const char *file, *text, *want;
        enum rc rc;
    } cases[] = {
        {"checkpoint.done", NULL, "not finished", RC_CORRUPT},
        {"checkpoint.done", "{}", "does not say", RC_CORRUPT},
        {"checkpoint.done", "x", "no JSON", RC_CORRUPT},
        {"checkpoint.done", "{\"success\": false, \"error\": \"boom\"}", "boom", RC_INVALID},
        {"metadata.json", NULL, "has no metadata.json", RC_CORRUPT},
        {"metadata.json", "[]", "is damaged", RC_CORRUPT},
        {"metadata.json", "{\"chrek\": {\"format\": 99}}", "is damaged", RC_CORRUPT},
        {"manifest", NULL, "has no manifest", RC_CORRUPT},
        {"manifest", "{\"format\": 99}", "newer chrek", RC_UNSUPPORTED},
        {"manifest", "{\"format\": 1, \"files\": [{\"name\": \"../x\"}]}", "bad name", RC_CORRUPT},
        {"pages-1.img", NULL, "'pages-1.img' is missing", RC_CORRUPT},
        {"pages-1.img", "longer than before", "bytes instead of", RC_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct err err = ERR_INIT;
        CLEANUP(store_freep) struct store *s = open_store();
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        CHECK_OK(make(s, "one", true, &err));
        spoil(cases[i].file, cases[i].text);
        CHECK_RC(store_find(s, "c", &e, &err), cases[i].rc);
        if (!strstr(err.msg, cases[i].want))
            test_fail(__FILE__, __LINE__, "case %zu said '%s'", i, err.msg);
        CHECK_OK(store_delete(s, "c", &err));
    }
}

TEST(a_file_that_the_manifest_does_not_know_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(make(s, "one", false, &err));
    spoil("dump.log", "logs may come later");
    CHECK_OK(store_find(s, "c", &e, &err));
    store_entry_freep(&e);
    spoil("core-2.img", "smuggled in");
    CHECK_RC(store_find(s, "c", &e, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "'core-2.img' is not in its manifest"));
}

TEST(changed_bytes_are_found)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CHECK_OK(make(s, "one", false, &err));
    spoil("core-1.img", "two");
    CHECK_OK(store_find(s, "c", &e, &err));
    CHECK_RC(store_verify(e, STORE_ALL, 1, NULL, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "'core-1.img' is damaged"));
    CHECK_RC(store_verify(e, STORE_SMALL, 1, NULL, &err), RC_CORRUPT);
    CHECK_OK(store_verify(e, STORE_BIG, 1, NULL, &err));
}

TEST(a_directory_is_named_by_its_last_element_however_the_path_ends)
{
    static const char *const ends[] = {"/c", "/c/", "/c//"};
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CHECK_OK(make(s, "one", false, &err));
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        CLEANUP(store_entry_freep) struct store_entry *e = NULL;
        CLEANUP(mem_freep) char *path = mem_asprintf("%s%s", test_dir(), ends[i]);
        CLEANUP(fd_closep) int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CHECK_OK(store_adopt(fd_steal(&dir), path, NULL, &e, &err));
        CHECK_STR(store_entry_id(e), "c");
    }
}

TEST(a_checkpoint_of_the_reference_implementation_is_accepted)
{
    struct err err = ERR_INIT;
    CLEANUP(store_freep) struct store *s = open_store();
    CLEANUP(store_entry_freep) struct store_entry *e = NULL;
    CLEANUP(mem_freep) char *dir = mem_asprintf("%s/c", test_dir());
    CHECK_OK(fs_mkdirs(dir, 0700, &err));
    spoil("metadata.json",
          "{\"checkpoint_id\": \"c\", \"pid\": 4711, \"image\": \"x\", \"criu_options\": "
          "{\"tcp_close\": true}, \"later\": [1]}");
    spoil("checkpoint.done", "{\"checkpoint_id\": \"c\", \"success\": true}");
    CHECK_OK(store_find(s, "c", &e, &err));
    CHECK(!store_entry_manifest(e) && store_entry_metadata(e)->pid == 4711);
    CHECK_RC(store_verify(e, STORE_ALL, 1, NULL, &err), RC_UNSUPPORTED);
}
