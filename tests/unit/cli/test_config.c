#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "cli/config.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static const char *use_file(void)
{
    static char path[512];
    (void)snprintf(path, sizeof(path), "%s/deep/er/config.json", test_dir());
    CHECK(setenv("CHREK_CONFIG", path, 1) == 0);
    return path;
}

static void check_storage(const char *want)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *storage = NULL;
    CHECK_OK(config_storage(&storage, &err));
    CHECK_STR(storage, want);
}

TEST(without_a_file_the_default_holds)
{
    (void)use_file();
    check_storage(CONFIG_DEFAULT_STORE);
}

TEST(what_was_set_is_read_again)
{
    struct err err = ERR_INIT;
    (void)use_file();
    CHECK_OK(config_set_storage("/mnt/a", &err));
    check_storage("/mnt/a");
    CHECK_OK(config_set_storage("/mnt/b \"c\"", &err));
    check_storage("/mnt/b \"c\"");
}

TEST(members_of_others_are_kept)
{
    struct err err = ERR_INIT;
    const char *path = use_file();
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(config_set_storage("/mnt/a", &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, "{\"later\": [1]}", 14, 0644, &err));
    check_storage(CONFIG_DEFAULT_STORE);
    CHECK_OK(config_set_storage("/mnt/b", &err));
    CHECK_OK(fs_read_file(AT_FDCWD, path, 4096, &text, &err));
    CHECK(strstr(buf_str(&text), "\"later\""));
}

TEST(a_damaged_file_is_an_error_and_is_not_overwritten)
{
    struct err err = ERR_INIT;
    const char *path = use_file();
    char *none = NULL;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(config_set_storage("/mnt/a", &err));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, "{oops", 5, 0644, &err));
    CHECK_RC(config_storage(&none, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, path));
    CHECK_RC(config_set_storage("/mnt/b", &err), RC_CORRUPT);
    CHECK_OK(fs_read_file(AT_FDCWD, path, 4096, &text, &err));
    CHECK_STR(buf_str(&text), "{oops");
    CHECK(none == NULL);
}

TEST(a_failing_system_leaves_the_old_configuration)
{
    struct err err = ERR_INIT;
    (void)use_file();
    CHECK_OK(config_set_storage("/mnt/a", &err));
    for (unsigned i = 0;; i++) {
        fault_arm(i, FAULT_FAIL);
        enum rc rc = config_set_storage("/mnt/b", &err);
        fault_disarm();
        if (rc == RC_OK)
            break;
        CLEANUP(mem_freep) char *storage = NULL;
        CHECK_OK(config_storage(&storage, &err));
        CHECK(strcmp(storage, "/mnt/a") == 0 || strcmp(storage, "/mnt/b") == 0);
        CHECK(i < 100);
    }
    check_storage("/mnt/b");
}

static void check_keys(const char *text, enum rc want, struct config_keys *out)
{
    struct err err = ERR_INIT;
    const char *path = use_file();
    CHECK_OK(config_set_storage("/mnt/a", &err)); /* makes the directory */
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0644, &err));
    CHECK_RC(config_read_keys(out, &err), want);
}

TEST(keys_are_configured_or_not)
{
    struct err err = ERR_INIT;
    struct config_keys k;
    (void)use_file();
    CHECK_OK(config_read_keys(&k, &err)); /* no file */
    CHECK(!k.key_file && !k.trust_key && !k.require_signature);
    config_keys_done(&k);
    check_keys("{\"key_file\": \"/k\", \"sign_key\": \"/s\", \"trust_key\": \"/t\", "
               "\"require_signature\": true}",
               RC_OK, &k);
    CHECK_STR(k.key_file, "/k");
    CHECK_STR(k.sign_key, "/s");
    CHECK_STR(k.trust_key, "/t");
    CHECK(k.require_signature && !k.key_command);
    config_keys_done(&k);
}

TEST(a_typo_does_not_turn_signatures_or_encryption_off)
{
    struct config_keys k;
    check_keys("{\"require_signature\": \"true\"}", RC_CORRUPT, &k);
    check_keys("{\"key_file\": [\"/k\"]}", RC_CORRUPT, &k);
    check_keys("{\"key_file\": ", RC_CORRUPT, &k);
}
