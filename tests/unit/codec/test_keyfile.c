#include "base/compiler.h"
#include "codec/hex.h"
#include "codec/keyfile.h"
#include "harness/test.h"

static const uint8_t wrapping[CIPHER_KEY] = {'w'}, other[CIPHER_KEY] = {'o'},
                     data[CIPHER_KEY] = {'d'};

TEST(a_key_file_is_32_bytes_or_their_digits)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    uint8_t key[CIPHER_KEY], back[CIPHER_KEY];
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 7);
    keyfile_format(key, &text);
    CHECK(strncmp(buf_str(&text), "chrek-key-1:00070e15", 20) == 0);
    const char *digits = buf_str(&text) + 12;
    struct {
        const void *at;
        size_t len;
    } good[] = {
        {text.data, text.len}, {text.data, text.len - 1}, {digits, 65}, {digits, 64}, {key, 32}};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        memset(back, 0, sizeof(back));
        CHECK_OK(keyfile_parse(good[i].at, good[i].len, back, &err));
        CHECK(memcmp(back, key, sizeof(key)) == 0);
    }
}

TEST(what_is_no_key_is_refused_without_being_told)
{
    struct err err = ERR_INIT;
    uint8_t key[CIPHER_KEY];
    static const char *const bad[] = {
        "", "hunter2", "chrek-key-1:", "\n",
        "hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2hunter2h"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        CHECK_RC(keyfile_parse(bad[i], strlen(bad[i]), key, &err), RC_INVALID);
        CHECK(!strstr(err.msg, "hunter"));
    }
}

TEST(a_wrapped_key_opens_with_its_own_key_only)
{
    struct err err = ERR_INIT;
    CLEANUP(wrapped_key_done) struct wrapped_key w = {.kind = KEYFILE_BY_FILE};
    CLEANUP(wrapped_key_done) struct wrapped_key back = {.kind = KEYFILE_BY_FILE};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    uint8_t out[CIPHER_KEY];
    CHECK_OK(wrapped_key_seal(wrapping, data, 1234, &w, &err));
    wrapped_key_format(&w, &text);
    CHECK_OK(wrapped_key_parse(text.data, text.len, &back, &err));
    CHECK(back.made_at == 1234 && back.kind == KEYFILE_BY_FILE);
    CHECK_OK(wrapped_key_open(&back, wrapping, out, &err));
    CHECK(memcmp(out, data, CIPHER_KEY) == 0);
    CHECK_RC(wrapped_key_open(&back, other, out, &err), RC_DENIED);
}

/* Whatever bit of the file is changed: refused. */
TEST(a_changed_wrapped_key_is_refused)
{
    struct err err = ERR_INIT;
    CLEANUP(wrapped_key_done) struct wrapped_key w = {.kind = KEYFILE_BY_FILE};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    uint8_t out[CIPHER_KEY];
    CHECK_OK(wrapped_key_seal(wrapping, data, 1234, &w, &err));
    wrapped_key_format(&w, &text);
    for (size_t bit = 0; bit < text.len * 8; bit++) {
        CLEANUP(wrapped_key_done) struct wrapped_key back = {.kind = KEYFILE_BY_FILE};
        text.data[bit / 8] = (char)(text.data[bit / 8] ^ (1 << bit % 8));
        enum rc rc = wrapped_key_parse(text.data, text.len, &back, &err);
        if (!rc)
            rc = wrapped_key_open(&back, wrapping, out, &err);
        CHECK(rc == RC_CORRUPT || rc == RC_UNSUPPORTED || rc == RC_DENIED);
        text.data[bit / 8] = (char)(text.data[bit / 8] ^ (1 << bit % 8));
    }
    for (size_t n = 0; n < text.len; n++) {
        CLEANUP(wrapped_key_done) struct wrapped_key back = {.kind = KEYFILE_BY_FILE};
        CHECK_RC(wrapped_key_parse(text.data, n, &back, &err), RC_CORRUPT);
    }
}

/* Not by this code: HKDF and GCM in Python over the AES of the openssl command. */
static const char golden[] =
    "636872656b6b657901000000010000000501e57b0fed82b31c67537356db0ceecb187af86d67a39d70d5c7dd"
    "0a53668500f1536500000000380000000000000000010203040506070807689b7ba36ae5e11563b562834e67"
    "398fcfbf8b98da16e8a5a001273776dfb780014ae8f43ea1b0371f91693af6d1";

TEST(format_1_is_readable_for_ever)
{
    struct err err = ERR_INIT;
    CLEANUP(wrapped_key_done) struct wrapped_key w = {.kind = KEYFILE_BY_FILE};
    uint8_t raw[(sizeof(golden) - 1) / 2], out[CIPHER_KEY];
    CHECK(hex_parse(golden, sizeof(golden) - 1, raw, sizeof(raw)));
    CHECK_OK(wrapped_key_parse(raw, sizeof(raw), &w, &err));
    CHECK_OK(wrapped_key_open(&w, wrapping, out, &err));
    CHECK(memcmp(out, data, CIPHER_KEY) == 0);
}
