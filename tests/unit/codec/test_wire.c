#include "codec/wire.h"
#include "harness/test.h"

TEST(every_kind_of_field_is_read)
{
    static const uint8_t bytes[] = {0x08, 0x96, 0x01,             /* 1: varint 150 */
                                    0x12, 0x02, 'h',  'i',        /* 2: bytes */
                                    0x1d, 0x01, 0x02, 0x03, 0x04, /* 3: fixed32 */
                                    0x21, 0x01, 0,    0,    0,    0, 0, 0, 0x80}; /* 4: fixed64 */
    struct wire w = wire_of(bytes, sizeof(bytes));
    struct wire_field f;
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(f.number == 1 && !f.is_bytes && f.value == 150);
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(f.number == 2 && f.is_bytes && f.len == 2 && memcmp(f.data, "hi", 2) == 0);
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(f.number == 3 && f.value == 0x04030201);
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(f.number == 4 && f.value == 0x8000000000000001);
    CHECK_INT(wire_next(&w, &f), 0);
    CHECK_INT(wire_next(&w, &f), 0);
}

TEST(nothing_is_a_message_without_fields)
{
    struct wire w = wire_of(NULL, 0);
    struct wire_field f;
    CHECK_INT(wire_next(&w, &f), 0);
}

static void check_broken(const uint8_t *bytes, size_t len)
{
    struct wire w = wire_of(bytes, len);
    struct wire_field f = {.number = 99};
    CHECK_INT(wire_next(&w, &f), -1);
    CHECK_INT(f.number, 99);
}

TEST(what_is_cut_or_impossible_is_refused)
{
    check_broken((const uint8_t[]){0x08}, 1);
    check_broken((const uint8_t[]){0x08, 0x80}, 2);
    check_broken((const uint8_t[]){0x12, 0x02, 'h'}, 3);
    check_broken((const uint8_t[]){0x1d, 1, 2, 3}, 4);
    check_broken((const uint8_t[]){0x21, 1, 2, 3, 4, 5, 6, 7}, 8);
    check_broken((const uint8_t[]){0x00, 0x01}, 2); /* field 0 */
    check_broken((const uint8_t[]){0x0b, 0x01}, 2); /* a group */
    check_broken((const uint8_t[]){0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}, 10);
    check_broken(
        (const uint8_t[]){0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
        12);
}

static void add(void *arg, uint64_t value)
{
    *(uint64_t *)arg = *(uint64_t *)arg * 1000 + value;
}

TEST(repeated_numbers_may_be_packed)
{
    static const uint8_t packed[] = {0x0a, 0x03, 0x05, 0x96, 0x01}, plain[] = {0x08, 0x05},
                         cut[] = {0x0a, 0x02, 0x05, 0x96};
    struct wire_field f;
    uint64_t sum = 0;
    struct wire w = wire_of(packed, sizeof(packed));
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(wire_numbers(&f, add, &sum));
    CHECK_INT(sum, 5150);
    w = wire_of(plain, sizeof(plain));
    sum = 0;
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(wire_numbers(&f, add, &sum));
    CHECK_INT(sum, 5);
    w = wire_of(cut, sizeof(cut));
    CHECK_INT(wire_next(&w, &f), 1);
    CHECK(!wire_numbers(&f, add, &sum));
}
