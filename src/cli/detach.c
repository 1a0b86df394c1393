#include "cli/detach.h"

#include "base/compiler.h"
#include "base/sys.h"
#include "cli/cli.h"
#include "cli/text.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child tells: the name follows. */
struct report {
    int32_t pid, init;
    uint64_t generation;
    char name[256];
};

static int print(const struct report *r, bool json)
{
    CLEANUP(buf_done) struct buf out = BUF_INIT;
    if (!json) {
        text_plain(&out, r->name);
        buf_adds(&out, "\n");
        return cli_print(&out);
    }
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    text_json(doc, o, "name", r->name);
    (void)yyjson_mut_obj_add_int(doc, o, "pid", r->pid);
    (void)yyjson_mut_obj_add_int(doc, o, "init_pid", r->init);
    (void)yyjson_mut_obj_add_uint(doc, o, "generation", r->generation);
    json_write(doc, &out);
    buf_adds(&out, "\n");
    return cli_print(&out);
}

static _Noreturn void wait_for_child(pid_t pid, int from, bool json)
{
    struct report r;
    size_t n = 0;
    int status = 0;
    enum rc rc = sys_read_full(from, &r, sizeof(r), &n, NULL);
    if (!rc && n == sizeof(r))
        _exit(print(&r, json));
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

static enum rc redirect(const char *log, struct err *err)
{
    CLEANUP(fd_closep) int in = sys_openat(AT_FDCWD, "/dev/null", O_RDONLY, 0);
    CLEANUP(fd_closep)
    int out = sys_openat(AT_FDCWD, log ? log : "/dev/null",
                         O_WRONLY | O_APPEND | (log ? O_CREAT : 0), 0640);
    if (log && in >= 0 && out < 0 && errno == ENOENT)
        return err_set(err, RC_NOT_FOUND, "open '%s': its directory is not there; make it first",
                       log);
    if (in < 0 || out < 0)
        return err_sys(err, "open '%s'", log && in >= 0 ? log : "/dev/null");
    if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 || dup2(out, STDERR_FILENO) < 0)
        return err_sys(err, "redirect the standard streams");
    return RC_OK;
}

enum rc detach(const char *log, bool json, struct detach *out, struct err *err)
{
    int p[2];
    if (pipe2(p, O_CLOEXEC) < 0)
        return err_sys(err, "make a pipe");
    pid_t pid = fork();
    if (pid < 0) {
        enum rc rc = err_sys(err, "fork");
        (void)close(p[0]);
        (void)close(p[1]);
        return rc;
    }
    if (pid > 0) {
        (void)close(p[1]);
        wait_for_child(pid, p[0], json);
    }
    (void)close(p[0]);
    (void)setsid();
    *out = (struct detach){.report = p[1], .errors = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3)};
    if (out->errors >= 0)
        cli_note_to(out->errors);
    return redirect(log, err);
}

void detach_begun(void *arg, const struct registry_box *box)
{
    struct detach *d = arg;
    struct report r = {
        .pid = (int32_t)getpid(), .init = (int32_t)box->init, .generation = box->generation};
    size_t n = strnlen(box->name, sizeof(r.name) - 1);
    memcpy(r.name, box->name, n);
    cli_note_to(STDERR_FILENO);
    (void)!sys_write_all(d->report, &r, sizeof(r), NULL);
    detach_done(d);
}

void detach_done(struct detach *d)
{
    fd_closep(&d->report);
    fd_closep(&d->errors);
    d->report = d->errors = -1;
}
