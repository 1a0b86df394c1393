#include "base/compiler.h"
#include "exchange/origin.h"
#include "harness/test.h"

#include <string.h>

TEST(what_was_written_is_read)
{
    struct err err = ERR_INIT;
    CLEANUP(origin_done) struct origin o = {.engine = NULL};
    CLEANUP(origin_done) struct origin got = {.engine = NULL};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    for (int i = 0; i < 5; i++)
        origin_add(&o, i ? "volumes/x.tar" : "config.dump", "member-000001", 0100640, -3);
    static const char empty[] = "{\"format\":1,\"engine\":\"podman\",\"members\":[]}";
    CHECK_OK(origin_parse(empty, sizeof(empty) - 1, &got, &err));
    CHECK_STR(got.engine, "podman");
    origin_done(&got);
    origin_format(&o, &text);
    CHECK_OK(origin_parse(buf_str(&text), text.len, &got, &err));
    CHECK_INT(got.n, 5);
    CHECK_STR(got.members[4].path, "volumes/x.tar");
    CHECK_STR(got.members[4].name, "member-000001");
    CHECK_INT(got.members[4].mode, 0640);
    CHECK_INT(got.members[4].mtime, -3);
}

TEST(an_origin_leads_nowhere_outside)
{
    struct err err = ERR_INIT;
    static const char *const bad[] = {
        "{\"format\":1,\"members\":[{\"path\":\"../x\",\"name\":\"a\"}]}",
        "{\"format\":1,\"members\":[{\"path\":\"/x\",\"name\":\"a\"}]}",
        "{\"format\":1,\"members\":[{\"path\":\"x\",\"name\":\"a/b\"}]}",
        "{\"format\":1,\"members\":[{\"path\":\"x\",\"name\":\"..\"}]}",
        "{\"format\":1,\"members\":[{\"path\":\"x\"}]}",
        "{\"format\":1,\"members\":[7]}",
        "[]",
    };
    struct origin got;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(origin_parse(bad[i], strlen(bad[i]), &got, &err), RC_CORRUPT);
    CHECK_RC(origin_parse("{\"format\":2}", 12, &got, &err), RC_UNSUPPORTED);
}
