#include "base/compiler.h"
#include "codec/json.h"
#include "gpu/facts.h"
#include "harness/test.h"

#include <stdio.h>

#define GIB ((uint64_t)1 << 30)

static struct gpu_facts machine(const char *driver, unsigned cuda, const char *letters)
{
    struct gpu_facts f = {.cuda = cuda, .can_checkpoint = true, .can_map = cuda >= 13000};
    (void)snprintf(f.driver, sizeof(f.driver), "%s", driver);
    for (; *letters; letters++) {
        struct gpu_device *d = &f.device[f.n_devices];
        *d = (struct gpu_device){.memory_bytes = 80 * GIB, .minor = (uint32_t)f.n_devices++};
        (void)snprintf(d->uuid, sizeof(d->uuid), "GPU-%c0000000-1111-2222-3333-444444444444",
                       *letters);
        (void)snprintf(d->name, sizeof(d->name), "Model X");
    }
    return f;
}

TEST(a_uuid_has_the_drivers_spelling)
{
    CHECK(gpu_uuid_valid("GPU-01234567-89ab-cdef-0123-456789ABCDEF"));
    CHECK(!gpu_uuid_valid("GPU-01234567-89ab-cdef-0123-456789abcde"));
    CHECK(!gpu_uuid_valid("MIG-01234567-89ab-cdef-0123-456789abcdef"));
    CHECK(!gpu_uuid_valid("GPU-0123456x-89ab-cdef-0123-456789abcdef"));
    CHECK(!gpu_uuid_valid("GPU-01234567a89ab-cdef-0123-456789abcdef"));
    CHECK(!gpu_uuid_valid(""));
}

TEST(a_map_is_pairs_or_refused)
{
    struct err err = ERR_INIT;
    struct gpu_map m;
#define A "GPU-a0000000-1111-2222-3333-444444444444"
#define B "GPU-b0000000-1111-2222-3333-444444444444"
    CHECK_OK(gpu_map_parse(A "=" B "," B "=" A, &m, &err));
    CHECK_INT(m.n, 2);
    CHECK_STR(m.pair[1].from, B);
    CHECK_STR(m.pair[1].to, A);
    static const char *const bad[] = {"", "GPU-x=GPU-y", A "=" B ",", A "," B, A "=" B "x"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(gpu_map_parse(bad[i], &m, &err), RC_INVALID);
    char many[GPU_DEVICES_MAX * 90 + 90] = "";
    for (size_t i = 0, n = 0; i <= GPU_DEVICES_MAX; i++)
        n += (size_t)snprintf(many + n, sizeof(many) - n, "%s" A "=" B, i ? "," : "");
    CHECK_RC(gpu_map_parse(many, &m, &err), RC_INVALID);
}

TEST(major_number_of_a_driver)
{
    struct gpu_facts f = machine("580.65.06", 13000, "");
    CHECK_INT(gpu_driver_major(&f), 580);
    f = machine("unknown", 13000, "");
    CHECK_INT(gpu_driver_major(&f), 0);
}

TEST(devices_are_kept_by_minor_number)
{
    struct gpu_facts f = machine("580", 13000, "abc");
    uint32_t two[] = {2, 7}, none[] = {9};
    gpu_facts_keep(&f, two, 2);
    CHECK_INT(f.n_devices, 1);
    CHECK_STR(f.device[0].uuid, "GPU-c0000000-1111-2222-3333-444444444444");
    f = machine("580", 13000, "abc");
    gpu_facts_keep(&f, none, 1);
    CHECK_INT(f.n_devices, 3);
}

TEST(the_same_gpus_need_no_map)
{
    struct err err = ERR_INIT;
    struct gpu_map m;
    struct gpu_facts saved = machine("580.1", 13000, "ba"), here = machine("580.1", 13000, "abc");
    CHECK_OK(gpu_facts_match(&saved, &here, &m, &err));
    CHECK_INT(m.n, 0);
}

TEST(others_of_the_model_take_their_place_in_order)
{
    struct err err = ERR_INIT;
    struct gpu_map m;
    struct gpu_facts saved = machine("580.1", 13000, "xb"), here = machine("580.1", 13000, "bcd");
    CHECK_OK(gpu_facts_match(&saved, &here, &m, &err));
    CHECK_INT(m.n, 2); /* a map names every GPU */
    CHECK_STR(m.pair[0].to, "GPU-c0000000-1111-2222-3333-444444444444");
    CHECK_STR(m.pair[1].to, saved.device[1].uuid);
}

static void refused(const struct gpu_facts *saved, const struct gpu_facts *here, const char *word)
{
    struct err err = ERR_INIT;
    struct gpu_map m = {.n = 77};
    CHECK_RC(gpu_facts_match(saved, here, &m, &err), RC_UNSUPPORTED);
    CHECK(strstr(err.msg, word));
    CHECK_INT(m.n, 77);
}

TEST(what_differs_is_named)
{
    struct gpu_facts saved = machine("580.1", 13000, "ab"), here;
    here = machine("580.2", 13000, "ab");
    refused(&saved, &here, "580.2");
    here = machine("580.1", 13000, "a");
    refused(&saved, &here, "with 2 GPUs");
    here = machine("580.1", 13000, "ab");
    (void)snprintf(here.device[1].name, sizeof(here.device[1].name), "Model Y");
    refused(&saved, &here, "Model X");
    here = machine("580.1", 13000, "ab");
    here.device[0].mig = true;
    refused(&saved, &here, "MIG");
    here = machine("580.1", 13000, "ab");
    here.device[0].memory_bytes = 40 * GIB;
    refused(&saved, &here, "81920 MiB");
    here = machine("580.1", 12080, "cd");
    refused(&saved, &here, "580 or newer");
    here = machine("580.1", 13000, "ab");
    here.can_checkpoint = false;
    refused(&saved, &here, "570 or newer");
}

TEST(as_json_and_back)
{
    struct err err = ERR_INIT;
    struct gpu_facts f = machine("580.1", 13000, "ab"), g;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    f.device[1].mig = true;
    yyjson_mut_doc_set_root(doc, o);
    gpu_facts_write(&f, doc, o);
    CLEANUP(json_docp) yyjson_doc *back = yyjson_mut_doc_imut_copy(doc, NULL);
    CHECK_OK(gpu_facts_read(yyjson_doc_get_root(back), &g, &err));
    CHECK_STR(g.driver, "580.1");
    CHECK(g.cuda == 13000 && g.can_checkpoint && g.can_map && g.n_devices == 2);
    CHECK(g.device[1].mig && !g.device[0].mig && g.device[1].memory_bytes == 80 * GIB);
    CHECK_STR(g.device[1].uuid, f.device[1].uuid);
    CHECK_STR(g.device[1].name, "Model X");
}

TEST(json_without_uuids_is_corrupt)
{
    struct err err = ERR_INIT;
    struct gpu_facts g;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    static const char text[] = "{\"devices\": [{\"uuid\": \"none\"}]}";
    CHECK_OK(json_parse("x", text, sizeof(text) - 1, &doc, &err));
    CHECK_RC(gpu_facts_read(yyjson_doc_get_root(doc), &g, &err), RC_CORRUPT);
    CLEANUP(json_docp) yyjson_doc *many = NULL;
    CLEANUP(buf_done) struct buf b = BUF_INIT;
    buf_adds(&b, "{\"devices\": [0");
    for (int i = 0; i < GPU_DEVICES_MAX; i++)
        buf_adds(&b, ", 0");
    buf_adds(&b, "]}");
    CHECK_OK(json_parse("x", b.data, b.len, &many, &err));
    CHECK_RC(gpu_facts_read(yyjson_doc_get_root(many), &g, &err), RC_CORRUPT);
}
