#include "base/mem.h"
#include "codec/hex.h"
#include "codec/signature.h"
#include "harness/test.h"

/* RFC 8032, test 1; the signature is by another implementation (the RFC's own Python). */
static const char private_pem[] =
    "-----BEGIN PRIVATE KEY-----\n"
    "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
    "-----END PRIVATE KEY-----\n";
static const char public_pem[] = "-----BEGIN PUBLIC KEY-----\n"
                                 "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
                                 "-----END PUBLIC KEY-----\n";
static const char golden[] =
    "chrek-signature 1\n"
    "signer d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\n"
    "ed25519 dc71badd78848808c5d66b3d0fd0a640333876e6d2f3b4512df560acbd1d66abbc0558efc61d72b042d676"
    "3868975475247630f932f541d519d3ae29da7a7b0b\n";

TEST(known_answer)
{
    struct err err = ERR_INIT;
    CLEANUP(signature_key_freep) struct signature_key *k = NULL;
    CLEANUP(signature_trust_done) struct signature_trust t = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct signature s, back;
    CHECK_OK(signature_key_parse(private_pem, strlen(private_pem), &k, &err));
    CHECK_OK(signature_make(k, "hello", 5, &s, &err));
    signature_format(&s, &text);
    CHECK_STR(buf_str(&text), golden);
    CHECK_OK(signature_parse(buf_str(&text), text.len, &back, &err));
    CHECK(memcmp(&s, &back, sizeof(s)) == 0);
    CHECK_OK(signature_trust_add(&t, public_pem, strlen(public_pem), &err));
    CHECK_OK(signature_check(&t, &back, "hello", 5, &err));
}

TEST(a_signature_of_others_or_of_other_bytes_does_not_count)
{
    struct err err = ERR_INIT;
    CLEANUP(signature_key_freep) struct signature_key *k = NULL;
    CLEANUP(signature_trust_done) struct signature_trust t = {0};
    CLEANUP(signature_trust_done) struct signature_trust others = {0};
    CLEANUP(buf_done) struct buf private = BUF_INIT;
    CLEANUP(buf_done) struct buf public = BUF_INIT;
    struct signature s;
    CHECK_OK(signature_generate(&private, &public, &err));
    CHECK_OK(signature_key_parse(private.data, private.len, &k, &err));
    CHECK_OK(signature_trust_add(&t, public.data, public.len, &err));
    CHECK_OK(signature_trust_add(&others, public_pem, strlen(public_pem), &err));
    CHECK_OK(signature_make(k, "data", 4, &s, &err));
    CHECK_OK(signature_check(&t, &s, "data", 4, &err));
    CHECK_RC(signature_check(&others, &s, "data", 4, &err), RC_DENIED);
    CHECK(strstr(err.msg, "nobody here trusts"));
    CHECK_RC(signature_check(&t, &s, "date", 4, &err), RC_CORRUPT);
    CHECK_RC(signature_check(&t, &s, "dat", 3, &err), RC_CORRUPT);
    for (size_t bit = 0; bit < sizeof(s.bytes) * 8; bit++) {
        s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        CHECK_RC(signature_check(&t, &s, "data", 4, &err), RC_CORRUPT);
        s.bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    s.signer[0] ^= 1;
    CHECK_RC(signature_check(&t, &s, "data", 4, &err), RC_DENIED);
}

TEST(a_trust_file_may_hold_several_keys_and_nothing_else)
{
    struct err err = ERR_INIT;
    CLEANUP(signature_trust_done) struct signature_trust t = {0};
    CLEANUP(buf_done) struct buf private = BUF_INIT;
    CLEANUP(buf_done) struct buf both = BUF_INIT;
    buf_adds(&both, public_pem);
    CHECK_OK(signature_generate(&private, &both, &err));
    CHECK_OK(signature_trust_add(&t, both.data, both.len, &err));
    CHECK_INT(t.n, 2);
    CHECK_RC(signature_trust_add(&t, private_pem, strlen(private_pem), &err), RC_INVALID);
    CHECK_RC(signature_trust_add(&t, "", 0, &err), RC_INVALID);
    CHECK_RC(signature_trust_add(&t, "nonsense", 8, &err), RC_INVALID);
    CHECK_INT(t.n, 2);
}

TEST(other_keys_are_no_signing_keys)
{
    struct err err = ERR_INIT;
    CLEANUP(signature_key_freep) struct signature_key *k = NULL;
    CHECK_RC(signature_key_parse(public_pem, strlen(public_pem), &k, &err), RC_INVALID);
    CHECK_RC(signature_key_parse("", 0, &k, &err), RC_INVALID);
    CHECK(!k);
}

TEST(texts_that_are_no_signature_are_refused)
{
    struct err err = ERR_INIT;
    struct signature s;
    static const char *const bad[] = {"", "x", "chrek-signature 1\n",
                                      "chrek-signature 1\nsigner 00\n"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(signature_parse(bad[i], strlen(bad[i]), &s, &err), RC_CORRUPT);
    CHECK_RC(signature_parse("chrek-signature 2\n", 18, &s, &err), RC_UNSUPPORTED);
    for (size_t n = 0; n < sizeof(golden) - 1; n++)
        CHECK_RC(signature_parse(golden, n, &s, &err), RC_CORRUPT);
    CLEANUP(mem_freep) char *longer = mem_asprintf("%sx", golden);
    CHECK_RC(signature_parse(longer, strlen(longer), &s, &err), RC_CORRUPT);
}
