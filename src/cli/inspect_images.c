#include "base/compiler.h"
#include "base/term.h"
#include "cli/inspect.h"
#include "cli/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- for people ---- */

static uint64_t saved(const struct cr_memory_use *m)
{
    uint64_t all = 0;
    for (int k = 0; k < CR_MEMORY_COUNT_; k++)
        all += m->saved[k];
    return all;
}

static unsigned depth_of(const struct cr_images *images, size_t i)
{
    unsigned depth = 0;
    uint32_t parent = images->processes[i].ppid;
    for (size_t k = i; k-- > 0 && depth < 20;)
        if (images->processes[k].pid == parent) {
            parent = images->processes[k].ppid;
            depth++;
        }
    return depth;
}

static void processes(const struct cr_images *images, struct buf *out)
{
    static const char *const titles[] = {">PID", ">THREADS", ">USER", ">MEMORY", "COMMAND"};
    struct term_table t;
    term_table_init(&t, titles, ARRAY_LEN(titles));
    for (size_t i = 0; i < images->n; i++) {
        const struct cr_process *p = &images->processes[i];
        char pid[16], threads[16], uid[16];
        CLEANUP(buf_done) struct buf size = BUF_INIT;
        CLEANUP(buf_done) struct buf command = BUF_INIT;
        (void)snprintf(pid, sizeof(pid), "%" PRIu32, p->pid);
        (void)snprintf(threads, sizeof(threads), "%" PRIu32, p->threads);
        (void)snprintf(uid, sizeof(uid), "%" PRIu32, p->uid);
        term_size(saved(&p->memory), &size);
        buf_addf(&command, "%*s", (int)(2 * depth_of(images, i)), "");
        if (p->arguments[0])
            text_words(&command, p->arguments, 100);
        else
            buf_addf(&command, "(%s)", p->comm);
        const char *cells[] = {pid, threads, uid, buf_str(&size), buf_str(&command)};
        term_table_row(&t, cells);
    }
    buf_adds(out, "\nPROCESSES\n");
    term_table_print(&t, out);
    term_table_done(&t);
}

static void add_up(const struct cr_images *images, struct cr_memory_use *out)
{
    for (size_t i = 0; i < images->n; i++)
        for (int k = 0; k < CR_MEMORY_COUNT_; k++) {
            out->mapped[k] += images->processes[i].memory.mapped[k];
            out->saved[k] += images->processes[i].memory.saved[k];
        }
    out->saved[CR_MEMORY_SHARED] += images->shared_saved;
}

static void memory(const struct cr_images *images, struct buf *out)
{
    static const char *const titles[] = {"KIND", ">SAVED", ">MAPPED"};
    struct cr_memory_use all = {{0}, {0}};
    struct term_table t;
    add_up(images, &all);
    term_table_init(&t, titles, ARRAY_LEN(titles));
    for (int k = 0; k < CR_MEMORY_COUNT_; k++) {
        CLEANUP(buf_done) struct buf kept = BUF_INIT;
        CLEANUP(buf_done) struct buf mapped = BUF_INIT;
        if (!all.mapped[k] && !all.saved[k])
            continue;
        term_size(all.saved[k], &kept);
        term_size(all.mapped[k], &mapped);
        const char *cells[] = {cr_memory_name((enum cr_memory)k), buf_str(&kept), buf_str(&mapped)};
        term_table_row(&t, cells);
    }
    buf_adds(out, "\nMEMORY\n");
    term_table_print(&t, out);
    term_table_done(&t);
}

static bool is_socket(const char *kind)
{
    static const char *const sockets[] = {"tcp", "udp", "raw", "inet", "unix", "packet", "netlink"};
    for (size_t i = 0; i < ARRAY_LEN(sockets); i++)
        if (strcmp(kind, sockets[i]) == 0)
            return true;
    return false;
}

static void descriptors(const struct cr_images *images, bool sockets, const char *title,
                        struct buf *out)
{
    static const char *const titles[] = {">PID", ">FD", "KIND", "WHAT"};
    struct term_table t;
    term_table_init(&t, titles, ARRAY_LEN(titles));
    for (size_t i = 0; i < images->n; i++) {
        const struct cr_process *p = &images->processes[i];
        for (size_t k = 0; k < p->n_descriptors; k++) {
            const struct cr_file *f = p->descriptors[k].file;
            char pid[16], fd[16];
            if (is_socket(f ? f->kind : "") != sockets)
                continue;
            (void)snprintf(pid, sizeof(pid), "%" PRIu32, p->pid);
            (void)snprintf(fd, sizeof(fd), "%" PRIu32, p->descriptors[k].fd);
            const char *cells[] = {pid, fd, f ? f->kind : "unknown", f ? f->text : ""};
            term_table_row(&t, cells);
        }
    }
    if (t.rows > 1) {
        buf_addf(out, "\n%s\n", title);
        term_table_print(&t, out);
    }
    term_table_done(&t);
}

static void environment(const struct cr_images *images, struct buf *out)
{
    if (!images->n || !images->processes[0].environment[0])
        return;
    buf_addf(out, "\nENVIRONMENT of %" PRIu32 "\n", images->processes[0].pid);
    for (char **v = images->processes[0].environment; *v; v++) {
        buf_adds(out, "  ");
        text_plain(out, *v);
        buf_adds(out, "\n");
    }
}

void inspect_images_people(const struct cr_images *images, struct buf *out)
{
    processes(images, out);
    memory(images, out);
    descriptors(images, false, "FILES", out);
    descriptors(images, true, "SOCKETS", out);
    environment(images, out);
}

/* ---- for machines ---- */

static void json_memory(const struct cr_memory_use *m, yyjson_mut_doc *doc, yyjson_mut_val *o,
                        const char *key)
{
    yyjson_mut_val *all = yyjson_mut_obj(doc);
    for (int k = 0; k < CR_MEMORY_COUNT_; k++) {
        if (!m->mapped[k] && !m->saved[k])
            continue;
        yyjson_mut_val *one = yyjson_mut_obj(doc);
        (void)yyjson_mut_obj_add_uint(doc, one, "saved", m->saved[k]);
        (void)yyjson_mut_obj_add_uint(doc, one, "mapped", m->mapped[k]);
        (void)yyjson_mut_obj_add_val(doc, all, cr_memory_name((enum cr_memory)k), one);
    }
    (void)yyjson_mut_obj_add_val(doc, o, key, all);
}

static void json_descriptors(const struct cr_process *p, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (size_t i = 0; i < p->n_descriptors; i++) {
        const struct cr_file *f = p->descriptors[i].file;
        yyjson_mut_val *d = yyjson_mut_arr_add_obj(doc, list);
        (void)yyjson_mut_obj_add_uint(doc, d, "fd", p->descriptors[i].fd);
        text_json(doc, d, "kind", f ? f->kind : "unknown");
        text_json(doc, d, "what", f ? f->text : "");
    }
    (void)yyjson_mut_obj_add_val(doc, o, "descriptors", list);
}

/* A variable that is there twice counts once: the first, as for getenv(). */
static void json_environment(const struct cr_process *p, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    yyjson_mut_val *all = yyjson_mut_obj(doc);
    for (char **v = p->environment; *v; v++) {
        const char *eq = strchr(*v, '=');
        if (eq && !yyjson_mut_obj_getn(all, *v, (size_t)(eq - *v)))
            (void)yyjson_mut_obj_add(all, yyjson_mut_strncpy(doc, *v, (size_t)(eq - *v)),
                                     yyjson_mut_strcpy(doc, eq + 1));
    }
    (void)yyjson_mut_obj_add_val(doc, o, "environment", all);
}

static void json_process(const struct cr_process *p, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    static const char *const modes[] = {"none", "strict", "filter"};
    char capabilities[24];
    (void)snprintf(capabilities, sizeof(capabilities), "%016" PRIx64, p->capabilities);
    (void)yyjson_mut_obj_add_uint(doc, o, "pid", p->pid);
    (void)yyjson_mut_obj_add_uint(doc, o, "ppid", p->ppid);
    (void)yyjson_mut_obj_add_uint(doc, o, "pgid", p->pgid);
    (void)yyjson_mut_obj_add_uint(doc, o, "sid", p->sid);
    (void)yyjson_mut_obj_add_uint(doc, o, "threads", p->threads);
    text_json(doc, o, "comm", p->comm);
    text_json(doc, o, "exe", p->exe);
    text_json(doc, o, "cwd", p->cwd);
    text_json(doc, o, "root", p->root);
    text_json_list(doc, o, "arguments", p->arguments);
    (void)yyjson_mut_obj_add_uint(doc, o, "uid", p->uid);
    (void)yyjson_mut_obj_add_uint(doc, o, "gid", p->gid);
    text_json(doc, o, "capabilities", capabilities);
    text_json(doc, o, "seccomp", p->seccomp < ARRAY_LEN(modes) ? modes[p->seccomp] : "unknown");
    json_memory(&p->memory, doc, o, "memory");
    json_descriptors(p, doc, o);
    json_environment(p, doc, o);
}

void inspect_images_json(const struct cr_images *images, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    struct cr_memory_use all = {{0}, {0}};
    add_up(images, &all);
    json_memory(&all, doc, o, "memory");
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (size_t i = 0; i < images->n; i++)
        json_process(&images->processes[i], doc, yyjson_mut_arr_add_obj(doc, list));
    (void)yyjson_mut_obj_add_val(doc, o, "processes", list);
}
