#include "codec/cipher.h"
#include "codec/hex.h"
#include "harness/test.h"

static void check_hex(const void *data, size_t len, const char *want)
{
    char text[257];
    CHECK(len <= 128);
    hex_format(data, len, text);
    CHECK_STR(text, want);
}

/* The GCM specification's test cases 13 and 14: everything zero. */
TEST(known_answers)
{
    struct err err = ERR_INIT;
    CLEANUP(cipher_freep) struct cipher *c = NULL;
    uint8_t key[CIPHER_KEY] = {0}, zero[16] = {0}, out[16], tag[CIPHER_TAG];
    struct cipher_message m = {.key = key};
    CHECK_OK(cipher_new(&c, &err));
    CHECK_OK(cipher_seal(c, &m, zero, 0, out, tag, &err));
    check_hex(tag, sizeof(tag), "530f8afbc74536b9a963b4f1c4cb738b");
    CHECK_OK(cipher_seal(c, &m, zero, 16, out, tag, &err));
    check_hex(out, sizeof(out), "cea7403d4d606b6e074ec5d3baf39d18");
    check_hex(tag, sizeof(tag), "d0d1c8a799996bf0265b98b5d48ab919");
}

/* By another implementation (Python's hmac). */
TEST(derived_keys_are_those_of_hkdf)
{
    struct err err = ERR_INIT;
    uint8_t key[CIPHER_KEY], salt[16], out[32];
    for (size_t i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)i;
    for (size_t i = 0; i < sizeof(salt); i++)
        salt[i] = (uint8_t)(0x60 + i);
    CHECK_OK(cipher_derive(key, salt, sizeof(salt), "chrek test", out, sizeof(out), &err));
    check_hex(out, sizeof(out), "13b81d55c17a82f191ff4ad386f8be25b5f480987ec8f6ddefe37664d5939b8d");
    CHECK_OK(cipher_derive(key, NULL, 0, "chrek test", out, 16, &err));
    check_hex(out, 16, "fd18f5cf2e9b6054f86f13c37b39b061");
    CHECK_RC(cipher_derive(key, NULL, 0, "chrek test", out, 65, &err), RC_IO);
}

TEST(what_was_sealed_opens_in_place_and_only_unchanged)
{
    struct err err = ERR_INIT;
    CLEANUP(cipher_freep) struct cipher *c = NULL;
    uint8_t key[CIPHER_KEY] = {1}, other[CIPHER_KEY] = {2}, tag[CIPHER_TAG];
    char text[] = "as secret as it gets", data[sizeof(text)];
    struct cipher_message m = {key, 7, "bound", 5};
    CHECK_OK(cipher_new(&c, &err));
    memcpy(data, text, sizeof(text));
    CHECK_OK(cipher_seal(c, &m, data, sizeof(data), data, tag, &err));
    CHECK(memcmp(data, text, sizeof(text)) != 0);
    char sealed[sizeof(text)], out[sizeof(text)];
    memcpy(sealed, data, sizeof(text));
    CHECK_OK(cipher_open(c, &m, data, sizeof(data), tag, data, &err));
    CHECK_STR(data, text);
    struct cipher_message wrong[] = {
        {other, 7, "bound", 5}, {key, 8, "bound", 5}, {key, 7, "bind!", 5}, {key, 7, NULL, 0}};
    for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
        CHECK_RC(cipher_open(c, &wrong[i], sealed, sizeof(text), tag, out, &err), RC_CORRUPT);
    CHECK_RC(cipher_open(c, &m, sealed, sizeof(text) - 1, tag, out, &err), RC_CORRUPT);
    for (size_t bit = 0; bit < sizeof(text) * 8; bit++) {
        sealed[bit / 8] = (char)(sealed[bit / 8] ^ (1 << bit % 8));
        CHECK_RC(cipher_open(c, &m, sealed, sizeof(text), tag, out, &err), RC_CORRUPT);
        sealed[bit / 8] = (char)(sealed[bit / 8] ^ (1 << bit % 8));
    }
    for (size_t bit = 0; bit < sizeof(tag) * 8; bit++) {
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_RC(cipher_open(c, &m, sealed, sizeof(text), tag, out, &err), RC_CORRUPT);
        tag[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    CHECK_OK(cipher_open(c, &m, sealed, sizeof(text), tag, out, &err));
    CHECK_STR(out, text);
}
