#include "engine/registry.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "codec/json.h"
#include "codec/name.h"
#include "container/proc_tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define RECORD_MAX ((size_t)4 << 20)
#define SAME_NAME_MAX 10000
#define TAKEN_TRIES 3

static char *path_of(const char *name, const char *file)
{
    return mem_asprintf(REGISTRY_DIR "/%s%s%s", name, *file ? "/" : "", file);
}

static void format(const struct registry_box *b, struct buf *out)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, o);
    (void)yyjson_mut_obj_add_str(doc, o, "name", b->name);
    (void)yyjson_mut_obj_add_uint(doc, o, "pid_ns", b->pid_ns);
    (void)yyjson_mut_obj_add_sint(doc, o, "owner", b->owner);
    (void)yyjson_mut_obj_add_uint(doc, o, "owner_start", b->owner_start);
    (void)yyjson_mut_obj_add_sint(doc, o, "init", b->init);
    (void)yyjson_mut_obj_add_uint(doc, o, "init_start", b->init_start);
    (void)yyjson_mut_obj_add_sint(doc, o, "pid", b->pid);
    const char *pairs[][2] = {
        {"store", b->store}, {"id", b->id}, {"notify", b->notify}, {"started_at", b->started_at}};
    for (size_t i = 0; i < ARRAY_LEN(pairs); i++)
        if (pairs[i][1])
            (void)yyjson_mut_obj_add_str(doc, o, pairs[i][0], pairs[i][1]);
    (void)yyjson_mut_obj_add_uint(doc, o, "generation", b->generation);
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    (void)yyjson_mut_obj_add_val(doc, o, "command", list);
    for (char **c = b->command; c && *c; c++)
        (void)yyjson_mut_arr_add_str(doc, list, *c);
    json_write(doc, out);
}

enum rc registry_update(const struct registry_box *b, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = path_of(b->name, "box.json");
    format(b, &text);
    return fs_write_whole(AT_FDCWD, path, text.data, text.len, 0600, err);
}

static uint64_t own_pid_ns(void)
{
    struct stat st;
    return stat("/proc/self/ns/pid", &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static enum rc parse(const char *text, size_t len, struct registry_box *out, struct err *err)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    enum rc rc = json_parse("box.json", text, len, &doc, err);
    if (rc)
        return rc;
    yyjson_val *o = yyjson_doc_get_root(doc), *list = yyjson_obj_get(o, "command");
    size_t n = yyjson_arr_size(list);
    *out = (struct registry_box){.name = mem_strdup(json_str(o, "name", "")),
                                 .pid_ns = json_u64(o, "pid_ns", 0),
                                 .owner = (pid_t)json_u64(o, "owner", 0),
                                 .owner_start = json_u64(o, "owner_start", 0),
                                 .init = (pid_t)json_u64(o, "init", 0),
                                 .init_start = json_u64(o, "init_start", 0),
                                 .pid = (pid_t)json_u64(o, "pid", 0),
                                 .store = mem_strdup(json_str(o, "store", NULL)),
                                 .id = mem_strdup(json_str(o, "id", NULL)),
                                 .notify = mem_strdup(json_str(o, "notify", NULL)),
                                 .started_at = mem_strdup(json_str(o, "started_at", NULL)),
                                 .generation = json_u64(o, "generation", 0),
                                 .command = mem_zalloc((n + 1) * sizeof(char *))};
    for (size_t i = 0; i < n; i++) {
        const char *s = yyjson_get_str(yyjson_arr_get(list, i));
        out->command[i] = mem_strdup(s ? s : "");
    }
    return RC_OK;
}

enum claim { CLAIM_OURS, CLAIM_TAKEN, CLAIM_GONE, CLAIM_FAILED };

/* Try to become the one who holds a record's directory.
 * out_fd  with CLAIM_OURS: the hold */
static enum claim hold(const char *name, int *out_fd)
{
    struct stat now, held;
    CLEANUP(mem_freep) char *path = path_of(name, "");
    CLEANUP(fd_closep)
    int fd = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (fd < 0)
        return errno == ENOENT ? CLAIM_GONE : CLAIM_FAILED;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? CLAIM_TAKEN : CLAIM_FAILED;
    /* Between opening and locking it may have been removed, and another made. */
    if (fstat(fd, &held) < 0 || stat(path, &now) < 0 || held.st_ino != now.st_ino)
        return CLAIM_GONE;
    *out_fd = fd_steal(&fd);
    return CLAIM_OURS;
}

static void remove_record(const char *name)
{
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, REGISTRY_DIR, O_RDONLY | O_DIRECTORY, 0);
    if (dir >= 0)
        (void)!fs_remove_tree(dir, name, NULL);
}

/* The record of a living box; a stale one is removed.  errors RC_NOT_FOUND, RC_DENIED, RC_IO */
static enum rc read_living(const char *name, struct registry_box *out, struct err *err)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(mem_freep) char *path = path_of(name, "box.json");
    int fd = -1;
    enum claim c = name_is_id(name) ? hold(name, &fd) : CLAIM_GONE;
    CLEANUP(fd_closep) int held = fd;
    if (c == CLAIM_OURS)
        remove_record(name);
    if (c == CLAIM_FAILED)
        return err_sys(err, "look at '%s'", path);
    if (c != CLAIM_TAKEN)
        return err_set(err, RC_NOT_FOUND, "no box '%s'", name);
    enum rc rc = fs_read_file(AT_FDCWD, path, RECORD_MAX, &text, err);
    return rc ? rc : parse(buf_str(&text), text.len, out, err);
}

enum rc registry_find(const char *name, struct registry_box *out, struct err *err)
{
    struct registry_box b = {0};
    enum rc rc = read_living(name, &b, err);
    if (!rc && b.pid_ns && b.pid_ns != own_pid_ns())
        rc = err_set(err, RC_UNSUPPORTED,
                     "'%s' runs in another PID namespace; call chrek where it was started", name);
    else if (rc == RC_NOT_FOUND || (!rc && b.pid <= 0))
        rc = err_set(err, RC_NOT_FOUND, "nothing called '%s' is running", name);
    if (rc)
        registry_box_done(&b);
    else
        *out = b;
    return rc;
}

void registry_leave(const char *name)
{
    remove_record(name);
}

/* The name's directory is the claim; that of a dead box may be taken. */
static enum rc claim(const char *name, int *out_fd, struct err *err)
{
    CLEANUP(mem_freep) char *path = path_of(name, "");
    for (int tries = 0, taken = 0; tries < 20; tries++) {
        int fd = -1;
        if (sys_mkdirat(AT_FDCWD, path, 0700) < 0 && errno != EEXIST)
            return err_sys(err, "make '%s'", path);
        switch (hold(name, &fd)) {
        case CLAIM_OURS: /* new, or a dead box's */
            *out_fd = fd;
            return RC_OK;
        case CLAIM_TAKEN: /* or somebody is just looking whether it is */
            if (++taken == TAKEN_TRIES)
                return err_set(err, RC_EXISTS, "a box '%s' is running", name);
            (void)nanosleep(&(struct timespec){0, 2000000}, NULL);
            break;
        case CLAIM_FAILED:
            return err_sys(err, "hold '%s'", path);
        case CLAIM_GONE:
        default:
            break;
        }
    }
    return err_set(err, RC_EXISTS, "cannot claim the name '%s'", name);
}

/* A dead box's directory is taken over as it is. */
static void forget_stop(const char *name)
{
    CLEANUP(mem_freep) char *path = path_of(name, "stopped");
    (void)unlink(path);
}

enum rc registry_enter(struct registry_box *b, const char *wanted, int *out_hold, struct err *err)
{
    enum rc rc = name_check_id(wanted, err);
    if (!rc)
        rc = fs_mkdirs(REGISTRY_DIR, 0755, err);
    for (int i = 1; !rc && i < SAME_NAME_MAX; i++) {
        char *name = i == 1 ? mem_strdup(wanted) : mem_asprintf("%s.%d", wanted, i);
        int fd = -1;
        rc = claim(name, &fd, err);
        if (!rc) {
            *out_hold = fd;
            b->name = name;
            b->pid_ns = own_pid_ns();
            forget_stop(name);
            return registry_update(b, err);
        }
        free(name);
        if (rc == RC_EXISTS)
            rc = RC_OK;
    }
    return rc ? rc : err_set(err, RC_EXISTS, "too many boxes called '%s'", wanted);
}

enum rc registry_list(struct registry_box **out, size_t *out_n, struct err *err)
{
    size_t n = 0, cap = 8;
    struct registry_box *list = mem_alloc(cap * sizeof(*list));
    DIR *dir = opendir(REGISTRY_DIR);
    if (!dir && errno != ENOENT) {
        free(list);
        return err_sys(err, "read " REGISTRY_DIR);
    }
    for (const struct dirent *e; dir && (e = readdir(dir));) {
        if (n == cap)
            list = mem_realloc(list, (cap *= 2) * sizeof(*list));
        if (!name_is_id(e->d_name))
            continue;
        if (read_living(e->d_name, &list[n], NULL) != RC_OK)
            continue;
        if (list[n].pid_ns && list[n].pid_ns != own_pid_ns())
            registry_box_done(&list[n]);
        else
            n++;
    }
    if (dir)
        (void)closedir(dir);
    *out = list;
    *out_n = n;
    return RC_OK;
}

void registry_box_done(struct registry_box *b)
{
    free(b->name);
    free(b->store);
    free(b->id);
    free(b->notify);
    free(b->started_at);
    proc_free_list(b->command);
    *b = (struct registry_box){0};
}

enum rc registry_host_pid(pid_t init, pid_t inner, pid_t *out, struct err *err)
{
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    size_t n = 0;
    enum rc rc = proc_children(init, &list, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        if (list[i].inner == inner) {
            *out = list[i].pid;
            return RC_OK;
        }
    return err_set(err, RC_NOT_FOUND, "the main process of the box has ended");
}

void registry_mark_stopped(const char *name)
{
    CLEANUP(mem_freep) char *path = path_of(name, "stopped");
    (void)!fs_write_whole(AT_FDCWD, path, "", 0, 0600, NULL);
}

bool registry_was_stopped(const char *name)
{
    CLEANUP(mem_freep) char *path = path_of(name, "stopped");
    return access(path, F_OK) == 0;
}
