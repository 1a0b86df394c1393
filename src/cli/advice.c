#include "cli/advice.h"

#include <string.h>

#define CRIU_LINE " [criu: " /* what CRIU said, see criu/explain.h */

static bool is(const char *command, const char *name)
{
    return command && strcmp(command, name) == 0;
}

static void default_hint(enum rc rc, const char *command, bool as_root, struct buf *hint)
{
    switch (rc) {
    case RC_INVALID:
        if (command)
            buf_addf(hint, "see `chrek %s --help`", command);
        else
            buf_adds(hint, "see `chrek --help`");
        return;
    case RC_NOT_FOUND:
        if (is(command, "import")) {
            buf_adds(hint, "is the name of the file right?");
            return;
        }
        if (is(command, "doctor") || is(command, "checkpoint")) {
            buf_adds(hint, "`chrek status` lists boxes, `ps -e` all processes");
            return;
        }
        buf_adds(hint, "`chrek ls` lists the checkpoints of a store (--store), `chrek status` what "
                       "runs");
        return;
    case RC_EXISTS:
        buf_adds(hint, "choose another id, or replace it with --replace");
        return;
    case RC_CONFLICT:
        buf_adds(hint, "make both sides agree again, or start without the checkpoint (run --cold)");
        return;
    case RC_DENIED:
        buf_adds(hint, as_root ? "`chrek doctor` tells which capability is missing"
                               : "run it as root: sudo chrek ...");
        return;
    case RC_UNSUPPORTED:
        buf_adds(hint, "`chrek doctor [PID]` tells what stands against it and what to change");
        return;
    case RC_CORRUPT:
        if (is(command, "import")) {
            buf_adds(hint,
                     "fetch the file once more from where it came from; `chrek import --help` "
                     "tells what is taken in");
            return;
        }
        if (is(command, "verify")) {
            buf_adds(hint, "`chrek verify --repair --from STORE ID` brings it back from a copy; "
                           "without one, `chrek delete ID` and make a new one");
            return;
        }
        buf_adds(hint, "`chrek verify ID` reads every byte; remove it with `chrek delete ID` and "
                       "make a new one");
        return;
    case RC_TOO_BIG:
        buf_adds(hint, "see the limits in `man chrek-checkpoint`");
        return;
    case RC_NO_SPACE:
        buf_adds(hint, is(command, "export")
                           ? "make room, or give a FILE on another disk"
                           : "make room (`chrek ls` shows the sizes), or use another --store");
        return;
    case RC_UNAVAILABLE:
        buf_adds(hint, "try again in a while");
        return;
    case RC_TIMEOUT:
        buf_adds(hint, "allow more time with --timeout, and look with `chrek status`");
        return;
    case RC_IO:
        buf_adds(hint, "`chrek doctor` checks this machine; the kernel's log (dmesg) may say more");
        return;
    case RC_OK:
    case RC_CANCELLED:
    case RC_COUNT_:
        return;
    }
}

/* The last `; ` before `end`, or NULL. */
static const char *last_break(const char *text, const char *end)
{
    const char *found = NULL;
    for (const char *p = text; (p = strstr(p, "; ")) && p < end; p += 2)
        found = p;
    return found;
}

void advice_of(const struct err *err, const char *command, bool as_root, struct buf *problem,
               struct buf *hint)
{
    const char *criu = strstr(err->msg, CRIU_LINE);
    const char *end = criu ? criu : err->msg + strlen(err->msg);
    const char *cut = last_break(err->msg, end);
    buf_add(problem, err->msg, (size_t)((cut ? cut : end) - err->msg));
    if (criu)
        buf_adds(problem, criu);
    if (cut)
        buf_add(hint, cut + 2, (size_t)(end - cut - 2));
    else
        default_hint(err->rc, command, as_root, hint);
}
