#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "criu/session.h"
#include "engine/engine.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK_NS (30 * CLOCK_S)

/* Where CRIU lies relative to our own program: installed (PREFIX/bin), or in the build tree
 * (build/<kind>/src). */
static const char *const beside[] = {"../lib/chrek/criu/sbin/criu", "../../criu/sbin/criu"};
static const char *const fixed[] = {"/usr/local/sbin/criu", "/usr/sbin/criu", "/usr/bin/criu"};

static bool usable(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0 || access(path, X_OK) < 0)
        return false;
    errno = S_ISREG(st.st_mode) ? 0 : EISDIR;
    return S_ISREG(st.st_mode);
}

enum rc engine_find_criu(char **out, struct err *err)
{
    const char *asked = getenv("CHREK_CRIU");
    if (asked && *asked) {
        if (!usable(asked))
            return err_set(
                err, rc_from_errno(errno),
                "$CHREK_CRIU names '%s': %s; name a criu program, 4.2 or newer, or leave "
                "it out",
                asked, strerrordesc_np(errno));
        *out = mem_strdup(asked);
        return RC_OK;
    }
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash)
        *slash = '\0';
    for (size_t i = 0; slash && i < ARRAY_LEN(beside); i++) {
        CLEANUP(mem_freep) char *path = mem_asprintf("%s/%s", self, beside[i]);
        if (usable(path) && (*out = realpath(path, NULL)))
            return RC_OK;
    }
    for (size_t i = 0; i < ARRAY_LEN(fixed); i++)
        if (usable(fixed[i])) {
            *out = mem_strdup(fixed[i]);
            return RC_OK;
        }
    return err_set(err, RC_NOT_FOUND,
                   "no criu program: looked beside chrek, in /usr/local/sbin and /usr/sbin; "
                   "install CRIU 4.2 or newer, or name it with --criu or $CHREK_CRIU");
}

enum rc engine_check_criu(const char *criu, struct err *err)
{
    CLEANUP(cr_session_freep) struct cr_session *s = NULL;
    struct cr_launch launch = {.criu = criu, .deadline = clock_now() + CHECK_NS};
    struct cr_facts version;
    enum rc rc = cr_session_open(&launch, &s, err);
    if (!rc)
        rc = cr_version(s, launch.deadline, &version, err);
    return rc ? err_ctx(err, rc, "CRIU cannot be used") : RC_OK;
}
