#include "base/compiler.h"
#include "cli/doctor.h"
#include "codec/json.h"
#include "harness/test.h"

static struct doctor_report report(struct doctor_finding *list, size_t n)
{
    return (struct doctor_report){.list = list, .n = n};
}

static char kernel[] = "Linux 6.18", uses[] = "process 9 (x\033y) uses io_uring",
            why[] = "CRIU cannot save it", remedy[] = "Switch it off.";

TEST(a_healthy_machine_is_told_in_one_line_each)
{
    struct doctor_finding list[] = {{.level = DOCTOR_OK, .id = "kernel", .what = kernel}};
    struct doctor_report r = report(list, 1);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    doctor_view_people(&r, NULL, false, &out);
    CHECK_STR(buf_str(&out), "ok    kernel           Linux 6.18\n\n"
                             "Nothing stands against a checkpoint: 0 problems, 0 warnings.\n");
}

TEST(quiet_says_nothing_when_all_is_well)
{
    struct doctor_finding list[] = {{.level = DOCTOR_OK, .id = "kernel", .what = kernel}};
    struct doctor_report r = report(list, 1);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    doctor_view_people(&r, NULL, true, &out);
    CHECK_STR(buf_str(&out), "");
}

TEST(a_problem_comes_with_reason_and_remedy)
{
    struct doctor_finding list[] = {{.level = DOCTOR_OK, .id = "kernel", .what = kernel},
                                    {.level = DOCTOR_FAIL,
                                     .id = "io-uring",
                                     .pid = 9,
                                     .what = uses,
                                     .why = why,
                                     .remedy = remedy}};
    struct doctor_report r = report(list, 2);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    doctor_view_people(&r, "process 9", true, &out);
    CHECK_STR(buf_str(&out),
              "FAIL  io-uring         process 9 (x?y) uses io_uring\n"
              "                       why: CRIU cannot save it\n"
              "                       do:  Switch it off.\n"
              "process 9 cannot be checkpointed as things are: 1 problem, 0 warnings.\n");
}

TEST(json_has_the_worst_level_and_every_finding)
{
    struct err err = ERR_INIT;
    struct doctor_finding list[] = {
        {.level = DOCTOR_OK, .id = "kernel", .what = kernel},
        {.level = DOCTOR_FAIL, .id = "io-uring", .pid = 9, .what = uses, .why = why}};
    struct doctor_report r = report(list, 2);
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    doctor_view_json(&r, &out);
    CHECK_OK(json_parse("it", buf_str(&out), out.len, &doc, &err));
    yyjson_val *root = yyjson_doc_get_root(doc), *all = yyjson_obj_get(root, "findings");
    CHECK_STR(json_str(root, "level", ""), "fail");
    CHECK_INT(yyjson_arr_size(all), 2);
    yyjson_val *bad = yyjson_arr_get(all, 1);
    CHECK_STR(json_str(bad, "id", ""), "io-uring");
    CHECK_STR(json_str(bad, "what", ""), uses);
    CHECK_INT(json_u64(bad, "pid", 0), 9);
    CHECK(!yyjson_obj_get(bad, "remedy"));
    CHECK(!yyjson_obj_get(yyjson_arr_get(all, 0), "pid"));
}
