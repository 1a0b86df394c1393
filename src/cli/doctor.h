/* How `chrek doctor` shows a report.  Threads: safe. */
#pragma once

#include "base/buf.h"
#include "engine/doctor.h"

#include <stdbool.h>

/* process  what was examined, for the last line; NULL = the machine alone
 * quiet    leave out what is fine */
void doctor_view_people(const struct doctor_report *r, const char *process, bool quiet,
                        struct buf *out);
void doctor_view_json(const struct doctor_report *r, struct buf *out);
