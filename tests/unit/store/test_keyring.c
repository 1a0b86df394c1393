#include "backend/drivers.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/hex.h"
#include "harness/test.h"
#include "store/keyring.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char *path_of(const char *name)
{
    return mem_asprintf("%s/%s", test_dir(), name);
}

/* A key file whose key is 32 times this character. */
static void write_key(const char *name, char c, mode_t mode)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = path_of(name);
    char key[CIPHER_KEY];
    memset(key, c, sizeof(key));
    CHECK_OK(fs_write_whole(AT_FDCWD, path, key, sizeof(key), mode, &err));
    CHECK(chmod(path, mode) == 0);
}

static enum rc try_open(const char *name, struct keyring **out, struct err *err)
{
    CLEANUP(mem_freep) char *path = path_of(name);
    struct key_source s = {.file = path};
    return keyring_open(&s, out, err);
}

static struct keyring *open_keys(const char *name)
{
    struct err err = ERR_INIT;
    struct keyring *k = NULL;
    CHECK_OK(try_open(name, &k, &err));
    return k;
}

static struct keyring *key_of(char c)
{
    char name[] = {'k', c, '\0'};
    write_key(name, c, 0600);
    return open_keys(name);
}

/* A store in a directory, so that what a crash leaves is seen. */
static struct backend *open_backend(void)
{
    struct err err = ERR_INIT;
    struct backend *b = NULL;
    CLEANUP(mem_freep) char *path = path_of("store");
    CHECK_OK(fs_mkdirs(path, 0700, &err));
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(backend_local_open(dir, &b, &err));
    return b;
}

static size_t wrappings(struct backend *b)
{
    struct err err = ERR_INIT;
    struct wrapped_key *list = NULL;
    size_t n = 0;
    CHECK_OK(keyring_list(b, &list, &n, &err));
    free(list);
    return n;
}

TEST(a_data_key_is_made_once_and_found_again)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(keyring_freep) struct keyring *k = key_of('a');
    CLEANUP(keyring_freep) struct keyring *again = open_keys("ka");
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY], three[CIPHER_KEY];
    struct key_id id, same;
    CHECK_OK(keyring_current(k, b, &id, one, &err));
    CHECK_OK(keyring_current(again, b, &same, two, &err));
    CHECK_OK(keyring_find(again, b, &id, three, &err));
    CHECK(memcmp(&id, &same, sizeof(id)) == 0);
    CHECK(memcmp(one, two, sizeof(one)) == 0 && memcmp(one, three, sizeof(one)) == 0);
    CHECK_INT(wrappings(b), 1);
}

TEST(another_key_is_another_domain_and_a_wrong_key_opens_nothing)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(keyring_freep) struct keyring *a = key_of('a');
    CLEANUP(keyring_freep) struct keyring *z = key_of('z');
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY];
    struct key_id id, other;
    CHECK_OK(keyring_current(a, b, &id, one, &err));
    CHECK_RC(keyring_find(z, b, &id, two, &err), RC_DENIED);
    CHECK(strstr(err.msg, "wrong key"));
    CHECK_OK(keyring_current(z, b, &other, two, &err));
    CHECK(memcmp(one, two, sizeof(one)) != 0);
    other.bytes[0] ^= 1;
    CHECK_RC(keyring_find(a, b, &other, one, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "is missing"));
}

TEST(a_child_of_a_fork_reads_the_key_again)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(keyring_freep) struct keyring *k = key_of('a');
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY];
    struct key_id id;
    CHECK_OK(keyring_current(k, b, &id, one, &err));
    pid_t pid = fork();
    if (pid == 0)
        _exit(keyring_find(k, b, &id, two, &err) == RC_OK && memcmp(one, two, sizeof(one)) == 0
                  ? 0
                  : 1);
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

TEST(a_file_that_others_may_read_is_refused_with_the_remedy)
{
    struct err err = ERR_INIT;
    struct keyring *k = NULL;
    static const mode_t modes[] = {0640, 0604, 0620, 0644};
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        write_key("k", 'k', modes[i]);
        CHECK_RC(try_open("k", &k, &err), RC_DENIED);
        CHECK(strstr(err.msg, "chmod 600") && strstr(err.msg, "defaultMode: 0400"));
    }
    write_key("k", 'k', 0400);
    k = open_keys("k");
    keyring_freep(&k);
    CHECK_RC(try_open("none", &k, &err), RC_NOT_FOUND);
    struct key_source none = {.file = NULL}, both = {.file = "x", .command = "y"};
    CHECK_RC(keyring_open(&none, &k, &err), RC_INVALID);
    CHECK_RC(keyring_open(&both, &k, &err), RC_INVALID);
}

/* As the kubelet makes them: key -> ..data/key, ..data -> ..2026_01_01. */
TEST(a_mounted_secret_is_a_directory_of_links)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(mem_freep) char *dir = path_of("secret/..2026_01_01");
    CLEANUP(mem_freep) char *data = path_of("secret/..data");
    CLEANUP(mem_freep) char *key = path_of("secret/key");
    CLEANUP(mem_freep) char *old = path_of("secret/a-retired-one");
    CHECK_OK(fs_mkdirs(dir, 0755, &err));
    write_key("secret/..2026_01_01/key", 'n', 0400);
    write_key("secret/..2026_01_01/a-retired-one", 'o', 0400);
    CHECK(symlink("..2026_01_01", data) == 0 && symlink("..data/key", key) == 0 &&
          symlink("..data/a-retired-one", old) == 0);
    CLEANUP(keyring_freep) struct keyring *secret = open_keys("secret");
    CLEANUP(keyring_freep) struct keyring *n = key_of('n');
    CLEANUP(keyring_freep) struct keyring *o = key_of('o');
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY];
    struct key_id id, new_id, old_id;
    CHECK_OK(keyring_current(o, b, &old_id, one, &err));
    CHECK_OK(keyring_current(n, b, &new_id, one, &err));
    CHECK_OK(keyring_current(secret, b, &id, two, &err)); /* writes with `key` */
    CHECK(memcmp(&id, &new_id, sizeof(id)) == 0);
    CHECK_OK(keyring_find(secret, b, &old_id, two, &err)); /* reads with all */
    CLEANUP(mem_freep) char *empty = path_of("empty");
    CHECK_OK(fs_mkdirs(empty, 0755, &err));
    struct keyring *k = NULL;
    CHECK_RC(try_open("empty", &k, &err), RC_INVALID);
}

TEST(rotation_wraps_anew_and_the_old_key_is_out)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(keyring_freep) struct keyring *old = key_of('o');
    CLEANUP(keyring_freep) struct keyring *new = key_of('n');
    CLEANUP(keyring_freep) struct keyring *stranger = key_of('s');
    CLEANUP(keyring_freep) struct keyring *third = key_of('t');
    struct keyring_rotation r;
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY];
    struct key_id id;
    CHECK_RC(keyring_rotate(old, new, b, false, &r, &err), RC_DENIED);
    CHECK_OK(keyring_current(old, b, &id, one, &err));
    CHECK_RC(keyring_rotate(stranger, third, b, false, &r, &err), RC_DENIED);
    CHECK_RC(keyring_rotate(old, old, b, false, &r, &err), RC_INVALID);
    CHECK_OK(keyring_rotate(old, new, b, true, &r, &err));
    CHECK(r.keys == 1 && r.removed == 0 && wrappings(b) == 2);
    CHECK_OK(keyring_rotate(old, new, b, false, &r, &err));
    CHECK(r.keys == 1 && r.removed == 1 && wrappings(b) == 1);
    CHECK_OK(keyring_rotate(old, new, b, false, &r, &err)); /* done already */
    CHECK(r.keys == 0 && r.removed == 0);
    CLEANUP(keyring_freep) struct keyring *o = open_keys("ko");
    CLEANUP(keyring_freep) struct keyring *n = open_keys("kn");
    CHECK_RC(keyring_find(o, b, &id, two, &err), RC_DENIED);
    CHECK_OK(keyring_find(n, b, &id, two, &err));
    CHECK(memcmp(one, two, sizeof(one)) == 0);
    CLEANUP(keyring_freep) struct keyring *n2 = open_keys("kn");
    CHECK_OK(keyring_rotate(n, n2, b, false, &r, &err)); /* onto itself: must not remove it */
    CHECK(r.removed == 0 && wrappings(b) == 1);
}

/* Whatever happens at whatever call: the data key is not lost. */
TEST(a_rotation_that_fails_or_dies_anywhere_loses_no_key)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(keyring_freep) struct keyring *old = key_of('o');
    CLEANUP(keyring_freep) struct keyring *new = key_of('n');
    struct keyring_rotation r;
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY];
    struct key_id id;
    CHECK_OK(keyring_current(old, b, &id, one, &err));
    for (int dies = 0; dies < 2; dies++)
        for (unsigned i = 0;; i++) {
            pid_t pid = fork();
            if (pid == 0) {
                fault_arm(i, dies ? FAULT_CRASH : FAULT_FAIL);
                (void)!keyring_rotate(old, new, b, false, &r, &err);
                bool hit = fault_passed() > i;
                fault_disarm();
                _exit(hit ? 1 : 0);
            }
            int status = 0;
            CHECK(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
            CLEANUP(keyring_freep) struct keyring *o = open_keys("ko");
            CLEANUP(keyring_freep) struct keyring *n = open_keys("kn");
            bool by_old = keyring_find(o, b, &id, two, &err) == RC_OK;
            CHECK(by_old || keyring_find(n, b, &id, two, &err) == RC_OK);
            CHECK(memcmp(one, two, sizeof(one)) == 0);
            if (!by_old) /* it came to the end: back again */
                CHECK_OK(keyring_rotate(n, o, b, false, &r, &err));
            if (WEXITSTATUS(status) == 0)
                break;
        }
}

/* A key service that answers the input with every byte changed. */
static char *service(const char *unwrap)
{
    struct err err = ERR_INIT;
    CLEANUP(mem_freep) char *path = path_of("kms");
    CLEANUP(mem_freep)
    char *text = mem_asprintf("#!/bin/sh\nif [ \"$CHREK_KEY_OPERATION\" = wrap ]; then\n"
                              "printf blob; exec tr '\\000-\\377' '\\001-\\377\\000'\nfi\n%s\n",
                              unwrap);
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text, strlen(text), 0700, &err));
    return STEAL(path);
}

TEST(a_key_service_wraps_and_unwraps)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(mem_freep)
    char *path = service("tail -c +5 | tr '\\001-\\377\\000' '\\000-\\377'");
    struct key_source s = {.command = path, .timeout_ns = 400000000};
    CLEANUP(keyring_freep) struct keyring *k = NULL;
    CLEANUP(keyring_freep) struct keyring *again = NULL;
    uint8_t one[CIPHER_KEY], two[CIPHER_KEY];
    struct key_id id, same;
    struct key_source patient = {.command = path};
    CHECK_OK(keyring_open(&patient, &k, &err));
    CHECK_OK(keyring_current(k, b, &id, one, &err));
    CHECK_OK(keyring_open(&patient, &again, &err));
    CHECK_OK(keyring_current(again, b, &same, two, &err));
    CHECK(memcmp(one, two, sizeof(one)) == 0 && memcmp(&id, &same, sizeof(id)) == 0);
    static const struct {
        const char *unwrap, *want;
        enum rc rc;
    } cases[] = {
        {"exec sleep 1000", "in time", RC_TIMEOUT},
        {"exit 9", "status 9", RC_UNAVAILABLE},
        {"printf 12345678901234567890123456789012", "not the key", RC_CORRUPT},
        {"printf 1234", "not the key", RC_CORRUPT},
        {"printf 123456789012345678901234567890123", "more than 32", RC_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        CLEANUP(mem_freep) char *bad = service(cases[i].unwrap);
        CLEANUP(keyring_freep) struct keyring *liar = NULL;
        s.timeout_ns = cases[i].rc == RC_TIMEOUT ? 400000000 : KEYRING_TIMEOUT_NS;
        CHECK_OK(keyring_open(&s, &liar, &err));
        CHECK_RC(keyring_find(liar, b, &id, two, &err), cases[i].rc);
        if (!strstr(err.msg, cases[i].want))
            test_fail(__FILE__, __LINE__, "case %zu said '%s'", i, err.msg);
        CHECK_RC(keyring_current(liar, b, &same, two, &err), cases[i].rc);
        CHECK_INT(wrappings(b), 1); /* no new domain on account of a service that is down */
    }
}

TEST(a_wrapping_in_the_wrong_place_or_damaged_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(backend_freep) struct backend *b = open_backend();
    CLEANUP(keyring_freep) struct keyring *a = key_of('a');
    uint8_t one[CIPHER_KEY];
    struct key_id id;
    struct wrapped_key *list = NULL;
    size_t n = 0;
    char data[33], wrapping[33];
    CHECK_OK(keyring_current(a, b, &id, one, &err));
    CHECK_OK(keyring_list(b, &list, &n, &err));
    CHECK(n == 1 && keyring_fits(a, &list[0]));
    hex_format(list[0].data.bytes, 16, data);
    hex_format(list[0].wrapping.bytes, 16, wrapping);
    free(list);
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/store/keys/%s/%s", test_dir(), data, wrapping);
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CHECK_OK(fs_read_file(AT_FDCWD, path, 4096, &text, &err));
    text.data[100] ^= 1;
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text.data, text.len, 0600, &err));
    CLEANUP(keyring_freep) struct keyring *again = open_keys("ka");
    CHECK_RC(keyring_find(again, b, &id, one, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "damaged"));
    text.data[100] ^= 1;
    text.data[20] ^= 1; /* another data key's name inside */
    CHECK_OK(fs_write_whole(AT_FDCWD, path, text.data, text.len, 0600, &err));
    CHECK_RC(keyring_find(again, b, &id, one, &err), RC_CORRUPT);
    CHECK(strstr(err.msg, "another one's"));
}
