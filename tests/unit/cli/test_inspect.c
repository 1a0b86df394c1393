/* What `chrek inspect` shows, of a metadata document and of tests/golden/images. */
#include "base/compiler.h"
#include "base/sys.h"
#include "cli/inspect.h"
#include "harness/test.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

static const char document[] =
    "{\"checkpoint_id\": \"web\", \"created_at\": \"2026-01-31T12:00:00Z\","
    " \"source_node\": \"host\\u0007\", \"container_id\": \"\", \"pod_name\": \"p\","
    " \"pod_namespace\": \"ns\", \"image\": \"i\", \"pid\": 9, \"has_rootfs_diff\": false,"
    " \"has_deleted_files\": false, \"mounts\": [], \"namespaces\": [], \"criu_options\": {},"
    " \"chrek\": {\"format\": 1, \"chrek_version\": \"0.1.0\", \"criu_version\": \"4.2.1\","
    " \"kernel\": \"6.1\", \"arch\": \"x86_64\", \"name\": \"box\", \"parent_id\": \"older\","
    " \"generation\": 3, \"root_pid\": 301, \"command\": [\"app\", \"--x\"], \"cwd\": \"/srv\","
    " \"streams\": [{\"kind\": \"pipe\", \"key\": \"pipe:[1]\"}, {\"kind\": \"tty\"},"
    " {\"kind\": \"none\"}], \"private_net\": true, \"labels\": {\"a\": \"b\"},"
    " \"timings_ns\": {\"dump\": 20000000}, \"freeze_ns\": 12000000, \"pages_bytes\": 2048,"
    " \"total_bytes\": 4096}}";

static void load(struct metadata *m, struct manifest *files)
{
    struct err err = ERR_INIT;
    struct digest d;
    CHECK_OK(metadata_parse(document, sizeof(document) - 1, m, &err));
    digest_of("x", 1, &d);
    manifest_add(files, "pages-1.img", 2048, &d);
    manifest_add(files, "core-1.img", 100, &d);
    manifest_add(files, "rootfs-diff.tar", 200, &d);
    manifest_add(files, "tmpfs-dev-shm.tar", 300, &d);
    manifest_add(files, "metadata.json", 50, &d);
}

TEST(sizes_are_told_by_what_files_hold)
{
    struct inspect_sizes s = {0};
    CLEANUP(metadata_done) struct metadata m = {0};
    CLEANUP(manifest_done) struct manifest files = {0};
    load(&m, &files);
    inspect_add_sizes(&files, &s);
    CHECK(s.memory == 2048 && s.images == 100 && s.rootfs == 200 && s.shm == 300 && s.other == 50);
    inspect_add_sizes(NULL, &s);
    CHECK(s.memory == 2048);
}

static bool has(const struct buf *b, const char *what)
{
    return strstr(buf_str(b), what) != NULL;
}

TEST(people_read_origin_sizes_and_timings)
{
    CLEANUP(metadata_done) struct metadata m = {0};
    CLEANUP(manifest_done) struct manifest files = {0};
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    load(&m, &files);
    inspect_people(&m, &files, "/s/web", &out);
    CHECK(has(&out, "checkpoint  web\n") && has(&out, "directory   /s/web\n"));
    CHECK(has(&out, "command     app --x\n") && has(&out, "in          /srv\n"));
    CHECK(has(&out, "made on     host?, Linux 6.1, x86_64\n"));
    CHECK(has(&out, "made by     chrek 0.1.0, CRIU 4.2.1\n"));
    CHECK(has(&out, "pod         ns/p\n") && has(&out, "generation  3\n"));
    CHECK(has(&out, "streams     stdin pipe, stdout terminal, stderr -\n"));
    CHECK(has(&out, "labels      a=b\n") && has(&out, "network     private\n"));
    CHECK(has(&out, "memory                2.0 KiB\n"));
    CHECK(has(&out, "dump                    20 ms\n"));
}

TEST(a_checkpoint_of_others_is_shown_too)
{
    struct err err = ERR_INIT;
    static const char theirs[] =
        "{\"checkpoint_id\": \"x\", \"created_at\": \"2026-01-31T12:00:00Z\"}";
    CLEANUP(metadata_done) struct metadata m = {0};
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CHECK_OK(metadata_parse(theirs, sizeof(theirs) - 1, &m, &err));
    inspect_people(&m, NULL, "/s/x", &out);
    CHECK(has(&out, "checkpoint  x\n") && !has(&out, "TIMINGS"));
}

TEST(json_has_the_documented_members)
{
    static const char *const members[] = {"id",
                                          "path",
                                          "created_at",
                                          "command",
                                          "cwd",
                                          "name",
                                          "parent_id",
                                          "generation",
                                          "labels",
                                          "host",
                                          "chrek_version",
                                          "criu_version",
                                          "pod_name",
                                          "pod_namespace",
                                          "image",
                                          "private_net",
                                          "tcp_established",
                                          "streams",
                                          "bytes",
                                          "timings_ns",
                                          "freeze_ns",
                                          "files"};
    struct err err = ERR_INIT;
    CLEANUP(metadata_done) struct metadata m = {0};
    CLEANUP(manifest_done) struct manifest files = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(json_docp) yyjson_doc *back = NULL;
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    load(&m, &files);
    inspect_json(&m, &files, "/s/web", doc, root);
    json_write(doc, &text);
    CHECK_OK(json_parse("it", buf_str(&text), text.len, &back, &err));
    for (size_t i = 0; i < ARRAY_LEN(members); i++)
        if (!yyjson_obj_get(yyjson_doc_get_root(back), members[i]))
            test_fail(__FILE__, __LINE__, "no member %s", members[i]);
    CHECK_INT(json_u64(yyjson_obj_get(yyjson_doc_get_root(back), "bytes"), "total", 0), 4096);
}

static struct cr_images *golden(void)
{
    struct err err = ERR_INIT;
    char path[512];
    struct cr_images *images = NULL;
    const char *root = getenv("CHREK_SOURCE_ROOT");
    if (!root)
        test_skip("CHREK_SOURCE_ROOT is not set");
    (void)snprintf(path, sizeof(path), "%s/tests/golden/images", root);
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    CHECK_OK(cr_images_load(dir, NULL, &images, &err));
    return images;
}

TEST(people_read_processes_memory_files_sockets_and_environment)
{
    CLEANUP(cr_images_freep) struct cr_images *images = golden();
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    inspect_images_people(images, &out);
    CHECK(has(&out, "PROCESSES\nPID  THREADS   USER    MEMORY  COMMAND\n"));
    CHECK(has(&out, "301        2      0  64.0 KiB  /opt/golden/app first argument second\n"));
    CHECK(has(&out, "302        1  65534  56.0 KiB    /opt/golden/app first argument second\n"));
    CHECK(has(&out, "\nheap"));
    CHECK(has(&out, "301  13  memfd    golden\n"));
    CHECK(has(&out, "301   7  tcp   127.0.0.1:18642 listening\n"));
    CHECK(has(&out, "ENVIRONMENT of 301\n  PATH=/usr/bin:/bin\n"));
    CHECK(has(&out, "  LINES=a?b\n"));
}

TEST(json_has_every_process)
{
    struct err err = ERR_INIT;
    CLEANUP(cr_images_freep) struct cr_images *images = golden();
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    CLEANUP(json_docp) yyjson_doc *back = NULL;
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    inspect_images_json(images, doc, root);
    json_write(doc, &text);
    CHECK_OK(json_parse("it", buf_str(&text), text.len, &back, &err));
    yyjson_val *all = yyjson_obj_get(yyjson_doc_get_root(back), "processes");
    CHECK_INT(yyjson_arr_size(all), 2);
    yyjson_val *first = yyjson_arr_get_first(all);
    CHECK_STR(json_str(yyjson_obj_get(first, "environment"), "LINES", ""), "a\nb");
    CHECK_STR(json_str(first, "seccomp", ""), "none");
    CHECK_INT(yyjson_arr_size(yyjson_obj_get(first, "descriptors")), 15);
    CHECK(yyjson_obj_get(yyjson_obj_get(first, "memory"), "stack"));
}
