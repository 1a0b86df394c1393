#include "base/mem.h"
#include "harness/test.h"
#include "store/manifest.h"

#include <stdlib.h>

static const char digits[] = "00112233445566778899aabbccddeeff";

static void fill(struct manifest *m, bool bound, bool sealed)
{
    struct digest d;
    digest_of("x", 1, &d);
    manifest_add(m, "core-1.img", 1, &d);
    if (!bound)
        return;
    m->id = mem_strdup("web");
    memset(m->instance, 7, sizeof(m->instance));
    m->sealed = sealed;
    if (!sealed)
        return;
    m->packs = mem_zalloc(sizeof(*m->packs));
    m->n_packs = 1;
    memcpy(m->packs[0], digits, sizeof(m->packs[0]));
    memset(m->key.bytes, 9, sizeof(m->key.bytes));
}

TEST(each_kind_is_read_back_with_its_format)
{
    for (int kind = 0; kind < 3; kind++) {
        struct err err = ERR_INIT;
        CLEANUP(manifest_done) struct manifest m = {0};
        CLEANUP(manifest_done) struct manifest back = {0};
        CLEANUP(buf_done) struct buf text = BUF_INIT;
        fill(&m, kind > 0, kind > 1);
        manifest_format(&m, &text);
        CHECK(strstr(buf_str(&text), kind ? "\"format\": 2" : "\"format\": 1"));
        CHECK_OK(manifest_parse(buf_str(&text), text.len, &back, &err));
        CHECK(back.n == 1 && manifest_find(&back, "core-1.img")->size == 1);
        CHECK(!manifest_find(&back, "core-2.img"));
        CHECK(!back.id == !kind && back.sealed == (kind == 2) &&
              back.n_packs == (size_t)(kind == 2));
        if (kind == 0)
            continue;
        CHECK_STR(back.id, "web");
        CHECK(memcmp(back.instance, m.instance, sizeof(m.instance)) == 0);
        CHECK(memcmp(&back.key, &m.key, sizeof(m.key)) == 0);
        CHECK(kind == 1 || strcmp(back.packs[0], digits) == 0);
    }
}

TEST(what_contradicts_itself_is_refused)
{
    static const char *const bad[] = {
        "{\"format\": 2, \"files\": []}",
        "{\"format\": 2, \"id\": \"web\", \"files\": []}",
        "{\"format\": 2, \"id\": \"../x\", \"instance\": \"00112233445566778899aabbccddeeff\", "
        "\"files\": []}",
        "{\"format\": 2, \"id\": \"web\", \"instance\": \"0011\", \"files\": []}",
        "{\"format\": 2, \"id\": \"web\", \"instance\": \"00112233445566778899aabbccddeeff\", "
        "\"key\": \"0011\", \"packs\": [], \"files\": []}",
        "{\"format\": 2, \"id\": \"web\", \"instance\": \"00112233445566778899aabbccddeeff\", "
        "\"key\": \"00112233445566778899aabbccddeeff\", \"files\": []}",
        "{\"format\": 2, \"id\": \"web\", \"instance\": \"00112233445566778899aabbccddeeff\", "
        "\"key\": \"00112233445566778899aabbccddeeff\", \"packs\": [\"../../etc/passwd\"], "
        "\"files\": []}",
        "{\"format\": 0, \"files\": []}",
        "{\"format\": 1}",
    };
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        struct manifest m;
        CHECK_RC(manifest_parse(bad[i], strlen(bad[i]), &m, &err), RC_CORRUPT);
    }
    struct err err = ERR_INIT;
    struct manifest m;
    CHECK_RC(manifest_parse("{\"format\": 3}", 13, &m, &err), RC_UNSUPPORTED);
}

TEST(documents_and_logs_are_not_listed)
{
    static const char *const not_listed[] = {"manifest", "manifest.sig", "checkpoint.done",
                                             "dump.log", "dump.log.zst"};
    for (size_t i = 0; i < ARRAY_LEN(not_listed); i++)
        CHECK(!manifest_wants(not_listed[i]));
    CHECK(manifest_wants("metadata.json") && manifest_wants("memory") && manifest_wants("x.img"));
}
