#include "codec/sha256.h"
#include "harness/test.h"

#include <stdlib.h>

static void check_hex(const uint8_t digest[SHA256_LEN], const char *want)
{
    char text[SHA256_HEX_LEN + 1];
    sha256_hex(digest, text);
    CHECK_STR(text, want);
}

TEST(known_digests)
{
    uint8_t d[SHA256_LEN];
    sha256_of(NULL, 0, d);
    check_hex(d, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    sha256_of("abc", 3, d);
    check_hex(d, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

/* RFC 4231, cases 1, 2, 6 and 7; keys of 20, 4 and 131 bytes */
TEST(known_authentication_codes)
{
    uint8_t d[SHA256_LEN];
    char key[131];
    memset(key, 0x0b, 20);
    sha256_hmac(key, 20, "Hi There", 8, d);
    check_hex(d, "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    sha256_hmac("Jefe", 4, "what do ya want for nothing?", 28, d);
    check_hex(d, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    memset(key, 0xaa, sizeof(key));
    sha256_hmac(key, sizeof(key), "Test Using Larger Than Block-Size Key - Hash Key First", 54, d);
    check_hex(d, "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(pieces_are_as_good_as_the_whole)
{
    uint8_t whole[SHA256_LEN], d[SHA256_LEN];
    char data[1000];
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)i;
    sha256_of(data, sizeof(data), whole);
    struct sha256 *s = sha256_new();
    for (size_t at = 0, n; at < sizeof(data); at += n) {
        n = at + 77 < sizeof(data) ? 77 : sizeof(data) - at;
        sha256_get(s, d); /* does not disturb */
        sha256_add(s, data + at, n);
    }
    sha256_add(s, NULL, 0);
    sha256_get(s, d);
    CHECK(memcmp(d, whole, sizeof(d)) == 0);
    sha256_freep(&s);
    sha256_freep(&s);
}
