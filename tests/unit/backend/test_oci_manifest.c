#include "backend/oci_manifest.h"
#include "base/compiler.h"
#include "harness/test.h"

#include <string.h>

static void check_tag(const char *key, const char *want)
{
    char tag[OCI_TAG_MAX + 1], back[BACKEND_KEY_MAX + 1];
    oci_tag(key, tag);
    CHECK_STR(tag, want);
    oci_key(tag, back);
    CHECK_STR(back, key);
}

TEST(every_key_has_a_tag_of_its_own)
{
    check_tag("web.tar", "web.tar");
    check_tag("packs/ab/0123", "packs_sab_s0123");
    check_tag("a_b", "a__b");
    check_tag("a_s", "a__s");
    check_tag("-x/-y", "_dx_s-y");
    check_tag("_", "__");
}

TEST(a_long_key_has_a_tag_that_does_not_tell_it)
{
    char key[BACKEND_KEY_MAX + 1], tag[OCI_TAG_MAX + 1], other[OCI_TAG_MAX + 1], back[600];
    memset(key, 'a', sizeof(key) - 1);
    key[sizeof(key) - 1] = '\0';
    key[200] = '/';
    oci_tag(key, tag);
    CHECK(strncmp(tag, "_x", 2) == 0 && strlen(tag) <= OCI_TAG_MAX);
    oci_key(tag, back);
    CHECK_STR(back, "");
    key[300] = 'b';
    oci_tag(key, other);
    CHECK(strcmp(tag, other) != 0);
}

TEST(tags_of_others_have_no_key)
{
    static const char *const odd[] = {"_", "_q", "a_", "_x", "a_db", "_s", "_ss"};
    char back[BACKEND_KEY_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(odd); i++) {
        oci_key(odd[i], back);
        CHECK_STR(back, "");
    }
}

TEST(what_was_written_is_read)
{
    struct err err = ERR_INIT;
    struct oci_layer layers[] = {{OCI_EMPTY_DIGEST, 2}, {OCI_EMPTY_DIGEST, 40}};
    char key[] = "a/b", writer[] = "0123";
    const struct oci_manifest m = {.key = key, .writer = writer, .layers = layers, .n = 2};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(oci_manifest_done) struct oci_manifest got = {.key = NULL};
    oci_manifest_format(&m, &text);
    CHECK_OK(oci_manifest_parse(buf_str(&text), text.len, &got, &err));
    CHECK_STR(got.key, "a/b");
    CHECK_STR(got.writer, "0123");
    CHECK_INT(got.size, 42);
    CHECK_STR(got.layers[1].digest, OCI_EMPTY_DIGEST);
}

TEST(bad_manifests_are_refused)
{
    struct err err = ERR_INIT;
    static const char *const bad[] = {
        "{}",
        "{\"layers\":{}}",
        "{\"layers\":[{}]}",
        "[]",
        "{\"layers\":[{\"digest\":\"sha256:xyz\",\"size\":1}]}",
        "{\"layers\":[{\"digest\":\"" OCI_EMPTY_DIGEST "\",\"size\":-1}]}",
        "{\"layers\":[{\"digest\":\"" OCI_EMPTY_DIGEST "\",\"size\":18446744073709551615}]}"};
    struct oci_manifest got;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(oci_manifest_parse(bad[i], strlen(bad[i]), &got, &err), RC_CORRUPT);
}
