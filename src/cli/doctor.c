/* chrek doctor: can this machine, can this process be checkpointed. */
#include "cli/doctor.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "cli/cli.h"
#include "cli/config.h"
#include "cli/text.h"
#include "codec/json.h"

#include <stdlib.h>
#include <string.h>

struct doctor_values {
    const char *store, *storage, *criu;
    uint64_t ghost_limit;
    bool tcp_established, skip_in_flight, json, quiet;
};

static const struct opt options[] = {
    CLI_STORE_OPTION(struct doctor_values, store),
    CLI_STORAGE_OPTION(struct doctor_values, storage),
    CLI_CRIU_OPTION(struct doctor_values, criu),
    {.name = "tcp-established",
     .kind = OPT_FLAG,
     .offset = offsetof(struct doctor_values, tcp_established),
     .help = "The checkpoint is to keep TCP connections to the outside."},
    {.name = "skip-in-flight",
     .kind = OPT_FLAG,
     .offset = offsetof(struct doctor_values, skip_in_flight),
     .help = "The checkpoint is to drop TCP connections that are just being opened."},
    CLI_GHOST_LIMIT_OPTION(struct doctor_values, ghost_limit),
    CLI_JSON_OPTION(struct doctor_values, json),
    {.name = "quiet",
     .letter = 'q',
     .kind = OPT_FLAG,
     .offset = offsetof(struct doctor_values, quiet),
     .help = "Show only what is not well."},
    {.name = NULL},
};

static enum rc examine(const struct doctor_values *v, pid_t pid, struct doctor_report *r,
                       struct err *err)
{
    CLEANUP(mem_freep) char *criu = mem_strdup(v->criu);
    CLEANUP(mem_freep) char *configured = NULL;
    const char *store = v->store ? v->store : v->storage;
    enum rc rc = store ? RC_OK : config_storage(&configured, err);
    if (rc)
        return rc;
    if (!criu)
        (void)!engine_find_criu(&criu, NULL); /* its absence is a finding */
    struct doctor_machine machine = {.criu = criu, .store = store ? store : configured};
    rc = doctor_check_machine(&machine, r, err);
    if (rc || !pid)
        return rc;
    struct doctor_process process = {.pid = pid,
                                     .ghost_limit = v->ghost_limit,
                                     .tcp_established = v->tcp_established,
                                     .skip_in_flight = v->skip_in_flight};
    return doctor_check_process(&process, r, err);
}

void doctor_view_people(const struct doctor_report *r, const char *process, bool quiet,
                        struct buf *out)
{
    static const char *const marks[] = {"ok  ", "warn", "FAIL"};
    for (size_t i = 0; i < r->n; i++) {
        const struct doctor_finding *f = &r->list[i];
        if (quiet && f->level == DOCTOR_OK)
            continue;
        buf_addf(out, "%s  %-16s ", marks[f->level], f->id);
        text_plain(out, f->what);
        if (f->why)
            buf_addf(out, "\n%22s why: ", "");
        text_plain(out, f->why ? f->why : "");
        if (f->remedy)
            buf_addf(out, "\n%22s do:  ", "");
        text_plain(out, f->remedy ? f->remedy : "");
        buf_adds(out, "\n");
    }
    size_t bad[DOCTOR_LEVEL_COUNT_] = {0};
    for (size_t i = 0; i < r->n; i++)
        bad[r->list[i].level]++;
    buf_adds(out, quiet ? "" : "\n");
    if (bad[DOCTOR_FAIL])
        buf_addf(out, "%s cannot be checkpointed as things are: ", process ? process : "Programs");
    else if (!quiet)
        buf_addf(out, "Nothing stands against a checkpoint%s%s: ", process ? " of " : "",
                 process ? process : "");
    if (bad[DOCTOR_FAIL] || !quiet)
        buf_addf(out, "%zu problem%s, %zu warning%s.\n", bad[DOCTOR_FAIL],
                 bad[DOCTOR_FAIL] == 1 ? "" : "s", bad[DOCTOR_WARN],
                 bad[DOCTOR_WARN] == 1 ? "" : "s");
}

void doctor_view_json(const struct doctor_report *r, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc), *list = yyjson_mut_arr(doc);
    yyjson_mut_doc_set_root(doc, root);
    (void)yyjson_mut_obj_add_str(doc, root, "level", doctor_level_name(doctor_worst(r)));
    (void)yyjson_mut_obj_add_val(doc, root, "findings", list);
    for (size_t i = 0; i < r->n; i++) {
        const struct doctor_finding *f = &r->list[i];
        yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
        (void)yyjson_mut_obj_add_str(doc, o, "level", doctor_level_name(f->level));
        (void)yyjson_mut_obj_add_str(doc, o, "id", f->id);
        if (f->pid)
            (void)yyjson_mut_obj_add_int(doc, o, "pid", f->pid);
        text_json(doc, o, "what", f->what);
        if (f->why)
            text_json(doc, o, "why", f->why);
        if (f->remedy)
            text_json(doc, o, "remedy", f->remedy);
    }
    json_write(doc, out);
    buf_adds(out, "\n");
}

static int doctor_main(const struct opt_command *self, int argc, char **argv)
{
    struct doctor_values v = {0};
    struct err err = ERR_INIT;
    int first = 0;
    pid_t pid = 0;
    CLEANUP(registry_box_done) struct registry_box box = {.name = NULL};
    CLEANUP(doctor_report_done) struct doctor_report report = DOCTOR_REPORT_INIT;
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    uint32_t ghost_limit = 0;
    enum rc rc = opt_parse(self, &v, argc, argv, &first, &err);
    if (!rc)
        rc = cli_ghost_limit(v.ghost_limit, &ghost_limit, &err);
    if (!rc && first < argc)
        rc = cli_find_process(argv[first], &box, &pid, &err);
    if (!rc)
        rc = examine(&v, pid, &report, &err);
    if (rc)
        return cli_fail(&err);
    CLEANUP(mem_freep) char *process = pid ? mem_asprintf("process %s", argv[first]) : NULL;
    if (v.json)
        doctor_view_json(&report, &out);
    else
        doctor_view_people(&report, process, v.quiet, &out);
    int code = cli_print(&out);
    return !code && doctor_worst(&report) == DOCTOR_FAIL ? CLI_UNSUPPORTED : code;
}

const struct opt_command cmd_doctor = {
    .name = "doctor",
    .summary = "tell whether this machine, or a process, can be checkpointed",
    .synopsis = "[OPTIONS] [PID|NAME]",
    .description =
        "Looks at the machine (rights, kernel, CRIU, store) and, if one is named, at a process and "
        "its descendants (io_uring, connections, devices, foreign mounts, debuggers and more). For "
        "whatever stands in the way it tells why, and what to change. The process is only looked "
        "at, not stopped.\n\n"
        "The exit status is 5 when something would make a checkpoint fail.",
    .examples = "  chrek doctor\n"
                "  chrek doctor 4711\n",
    .opts = options,
    .max_operands = 1,
    .candidates = "__boxes",
    .run = doctor_main,
};
