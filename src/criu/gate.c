#include "criu/gate.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/session.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GO 'g'
#define LIBRARY "lib/hold.so" /* beside sbin/criu */
#define PROGRAM "sbin/criu"

bool cr_can_wait(const char *criu)
{
    CLEANUP(mem_freep) char *path = realpath(criu, NULL);
    size_t len = path ? strlen(path) : 0, tail = strlen(PROGRAM);
    if (len <= tail || strcmp(path + len - tail, PROGRAM) != 0)
        return false;
    CLEANUP(mem_freep) char *library = mem_asprintf("%.*s" LIBRARY, (int)(len - tail), path);
    return access(library, R_OK) == 0;
}

enum rc cr_gate_make(size_t passed, struct cr_gate *out, struct err *err)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    out->from = p[0];
    out->to = p[1];
    (void)snprintf(out->env, sizeof(out->env), CR_GATE_VARIABLE "=%d", cr_session_fd(passed));
    return RC_OK;
}

void cr_gate_handed(struct cr_gate *g)
{
    fd_closep(&g->from);
}

enum rc cr_gate_open(struct cr_gate *g, struct err *err)
{
    char go = GO;
    if (g->to < 0)
        return RC_OK;
    return sys_write_all(g->to, &go, 1, err);
}

void cr_gate_shut(struct cr_gate *g)
{
    fd_closep(&g->from);
    fd_closep(&g->to);
}
