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
    struct work got;
    const struct work w = {.store = "/s \"x\"",
                           .id = "abc",
                           .pid = 4711,
                           .plain = true,
                           .codec = COMPRESS_ZSTD,
                           .ghost_limit = 5,
                           .timeout_ns = 7,
                           .origin = {.node = "n",
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
    CHECK_STR(got.origin.node, "n");
    CHECK_STR(got.origin.container_id, "c");
    CHECK_STR(got.origin.pod_name, "p");
    CHECK_STR(got.origin.pod_namespace, "ns");
    CHECK_STR(got.origin.image, "i");
    CHECK(!got.origin.pod_ip);
}

TEST(what_is_no_request_is_refused)
{
    static const char *const bad[] = {"", "[]", "{}", "{\"store\":\"s\",\"id\":\"i\",\"pid\":0}",
                                      "{\"store\":\"s\",\"id\":\"i\",\"pid\":1,\"codec\":\"x\"}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        yyjson_doc *doc = NULL;
        struct work w;
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
