#include "base/buf.h"
#include "base/compiler.h"
#include "codec/json.h"
#include "harness/test.h"
#include "store/metadata_place.h"

static const char whole[] = "{\n"
                            "  \"mounts\": [\n"
                            "    {\n"
                            "      \"container_path\": \"/data\",\n"
                            "      \"host_path\": \"/h\",\n"
                            "      \"oci_source\": \"/s\",\n"
                            "      \"oci_type\": \"bind\",\n"
                            "      \"oci_options\": [\n"
                            "        \"rw\"\n"
                            "      ],\n"
                            "      \"volume_type\": \"emptyDir\",\n"
                            "      \"volume_name\": \"d\",\n"
                            "      \"fs_type\": \"ext4\",\n"
                            "      \"read_only\": true\n"
                            "    }\n"
                            "  ],\n"
                            "  \"masked_paths\": [\n"
                            "    \"/m\"\n"
                            "  ],\n"
                            "  \"readonly_paths\": [\n"
                            "    \"/r\"\n"
                            "  ],\n"
                            "  \"bind_mount_dests\": [\n"
                            "    \"/data\"\n"
                            "  ],\n"
                            "  \"namespaces\": [\n"
                            "    {\n"
                            "      \"type\": \"net\",\n"
                            "      \"inode\": 4026531992,\n"
                            "      \"is_external\": true\n"
                            "    }\n"
                            "  ]\n"
                            "}";

static void read_and_write(const char *text, struct buf *out)
{
    struct err err = ERR_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(metadata_place_done) struct metadata_place p = {.mounts = NULL};
    CLEANUP(json_mut_docp) yyjson_mut_doc *to = yyjson_mut_doc_new(NULL);
    CHECK_OK(json_parse("it", text, strlen(text), &doc, &err));
    CHECK_OK(metadata_place_read(yyjson_doc_get_root(doc), &p, &err));
    yyjson_mut_doc_set_root(to, yyjson_mut_obj(to));
    metadata_place_write(&p, to, yyjson_mut_doc_get_root(to));
    json_write(to, out);
}

TEST(a_place_is_written_in_the_contracts_order_and_read_back)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    read_and_write(whole, &out);
    CHECK_STR(buf_str(&out), whole);
}

TEST(a_place_with_nothing_has_empty_lists)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    read_and_write("{\"mounts\":null,\"masked_paths\":7,\"namespaces\":{}}", &out);
    CHECK_STR(buf_str(&out), "{\n  \"mounts\": [],\n  \"namespaces\": []\n}");
}
