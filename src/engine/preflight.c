#include "engine/preflight.h"

#include "base/compiler.h"
#include "engine/doctor.h"

#include <string.h>
#include <time.h>

/* A tree that lives changes while it is read: a process that is just being born or ending looks
 * like one that cannot be saved.  What is still said of the same process at the third look holds.
 */
#define LOOKS 3
#define PAUSE_NS 15000000L

static enum rc look(const struct engine_checkpoint_request *req, struct doctor_report *out)
{
    struct doctor_process p = {.pid = req->pid,
                               .ghost_limit = req->ghost_limit,
                               .tcp_established = req->tcp_established,
                               .skip_in_flight = req->skip_in_flight,
                               .container = req->container != NULL,
                               .quick = true};
    return doctor_check_process(&p, out, NULL);
}

static bool has(const struct doctor_report *r, const struct doctor_finding *f)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->list[i].level == DOCTOR_FAIL && r->list[i].pid == f->pid &&
            strcmp(r->list[i].id, f->id) == 0)
            return true;
    return false;
}

/* Whether a finding of the first look holds at the others. */
static bool lasts(const struct engine_checkpoint_request *req, const struct doctor_finding *f)
{
    for (int i = 1; i < LOOKS; i++) {
        CLEANUP(doctor_report_done) struct doctor_report again = DOCTOR_REPORT_INIT;
        struct timespec pause = {0, PAUSE_NS};
        (void)nanosleep(&pause, NULL);
        if (look(req, &again) != RC_OK || !has(&again, f))
            return false;
    }
    return true;
}

enum rc preflight(const struct engine_checkpoint_request *req, struct err *err)
{
    CLEANUP(doctor_report_done) struct doctor_report report = DOCTOR_REPORT_INIT;
    if (look(req, &report) != RC_OK)
        return RC_OK;
    for (size_t i = 0; i < report.n; i++) {
        const struct doctor_finding *f = &report.list[i];
        if (f->level != DOCTOR_FAIL || !lasts(req, f))
            continue;
        bool passes =
            strcmp(f->id, DOCTOR_TCP_PENDING) == 0 || strcmp(f->id, DOCTOR_BEING_SAVED) == 0;
        return err_set(err, passes ? RC_CONFLICT : RC_UNSUPPORTED, "%s: %s%s%s", f->what,
                       f->why ? f->why : "", f->remedy ? "; " : "", f->remedy ? f->remedy : "");
    }
    return RC_OK;
}
