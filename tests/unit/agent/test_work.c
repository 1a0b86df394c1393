#include "agent/work.h"
#include "base/buf.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "harness/test.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

TEST(a_request_goes_over_the_line_as_it_is)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(work_done) struct work got = {.store = NULL};
    static const char spec[] =
        "{\"linux\":{\"maskedPaths\":[\"/m\"],\"readonlyPaths\":[\"/r\",7,\"/s\"]},\"mounts\":["
        "{\"destination\":\"/d\",\"type\":\"bind\",\"source\":\"/h\",\"options\":[\"ro\"]},"
        "{\"source\":\"/x\"}]}";
    CLEANUP(json_docp) yyjson_doc *oci = NULL;
    CHECK_OK(json_parse("it", spec, strlen(spec), &oci, &err));
    const struct work w = {.spec = yyjson_doc_get_root(oci),
                           .external = "mnt[/a]:/a",
                           .store = "/s \"x\"",
                           .id = "abc",
                           .pid = 4711,
                           .plain = true,
                           .codec = COMPRESS_ZSTD,
                           .ghost_limit = 5,
                           .timeout_ns = 7,
                           .container = {.node = "n",
                                         .container_id = "c",
                                         .pod_name = "p",
                                         .pod_namespace = "ns",
                                         .image = "i"}};
    work_format(&w, &text);
    CHECK_OK(work_parse(text.data, text.len, &doc, &got, &err));
    CHECK_STR(got.store, w.store);
    CHECK_STR(got.id, "abc");
    CHECK(!got.criu && got.pid == 4711 && got.plain && got.codec == COMPRESS_ZSTD);
    CHECK(got.ghost_limit == 5 && got.timeout_ns == 7);
    CHECK_STR(got.container.node, "n");
    CHECK_STR(got.container.container_id, "c");
    CHECK_STR(got.container.pod_name, "p");
    CHECK_STR(got.container.pod_namespace, "ns");
    CHECK_STR(got.container.image, "i");
    CHECK(!got.container.pod_ip);
    CHECK_STR(got.external, "mnt[/a]:/a");
    CHECK_STR(got.container.masked_paths[0], "/m");
    CHECK_STR(got.container.readonly_paths[1], "/s");
    CHECK(!got.container.masked_paths[1] && !got.container.readonly_paths[2]);
    CHECK_INT(got.container.n_mounts, 1);
    CHECK_STR(got.container.mounts[0].destination, "/d");
    CHECK_STR(got.container.mounts[0].options[0], "ro");
}

TEST(what_is_no_request_is_refused)
{
    static const char *const bad[] = {"", "[]", "{}", "{\"store\":\"s\",\"id\":\"i\",\"pid\":0}",
                                      "{\"store\":\"s\",\"id\":\"i\",\"pid\":1,\"codec\":\"x\"}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        yyjson_doc *doc = NULL;
        struct work w = {.store = NULL};
        CHECK(work_parse(bad[i], strlen(bad[i]), &doc, &w, &err) != RC_OK);
        CHECK(!doc);
    }
}

/* The worker's own end, in this process: a process that is not there cannot be captured. */
TEST(a_worker_answers_with_its_failure)
{
    struct err err = ERR_INIT;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    char answer[4096];
    size_t len = 0;
    CLEANUP(mem_freep) char *store = mem_asprintf("%s/store", test_dir());
    const struct work w = {
        .store = store, .id = "abc", .criu = "/bin/true", .pid = 4194303, .codec = COMPRESS_LZ4};
    CLEANUP(fd_closep) int in = memfd_create("in", MFD_CLOEXEC);
    CLEANUP(fd_closep) int out = memfd_create("out", MFD_CLOEXEC);
    work_format(&w, &text);
    CHECK_OK(sys_write_all(in, text.data, text.len, &err));
    CHECK(lseek(in, 0, SEEK_SET) == 0);
    CHECK_INT(work_main(in, out), 0);
    CHECK(lseek(out, 0, SEEK_SET) == 0);
    CHECK_OK(sys_read_full(out, answer, sizeof(answer), &len, &err));
    CHECK_OK(json_parse("it", answer, len, &doc, &err));
    CHECK_INT(json_u64(yyjson_doc_get_root(doc), "rc", 0), RC_NOT_FOUND);
    CHECK(strstr(json_str(yyjson_doc_get_root(doc), "error", ""), "4194303"));
}
