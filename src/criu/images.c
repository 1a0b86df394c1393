#include "criu/images.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/images_priv.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define IMAGE_MAX ((size_t)256 << 20)
#define HEAD 8 /* two magic numbers */

const char *cr_memory_name(enum cr_memory kind)
{
    static const char *const names[] = {"heap",         "stack",       "anonymous",
                                        "file-private", "file-shared", "shared",
                                        "memfd",        "sysv",        "other"};
    return (unsigned)kind < ARRAY_LEN(names) ? names[kind] : "other";
}

/* ---- one image ---- */

enum rc image_broken(const struct image *i, struct err *err)
{
    return err_set(err, RC_CORRUPT, "image %s makes no sense at byte %zu", i->name, i->at);
}

enum rc image_open(int dirfd, struct image *i, struct err *err, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    (void)vsnprintf(i->name, sizeof(i->name), name, args);
    va_end(args);
    i->data.max = IMAGE_MAX;
    enum rc rc = fs_read_file(dirfd, i->name, IMAGE_MAX, &i->data, err);
    if (!rc && i->data.len < HEAD)
        rc = image_broken(i, err);
    i->at = HEAD;
    return rc;
}

enum rc image_next(struct image *i, struct wire *out, bool *more, struct err *err)
{
    uint32_t len;
    *more = i->at < i->data.len;
    if (!*more)
        return RC_OK;
    if (i->data.len - i->at < sizeof(len))
        return image_broken(i, err);
    memcpy(&len, i->data.data + i->at, sizeof(len));
    i->at += sizeof(len);
    if (len > i->data.len - i->at)
        return image_broken(i, err);
    *out = wire_of(i->data.data + i->at, len);
    i->at += len;
    return RC_OK;
}

void image_done(struct image *i)
{
    buf_done(&i->data);
}

char *image_text(const struct wire_field *f)
{
    size_t len = f->len < IMAGE_TEXT_MAX ? f->len : IMAGE_TEXT_MAX;
    char *text = mem_zalloc(len + 1);
    for (size_t i = 0; i < len; i++)
        text[i] = (char)(f->data[i] ? f->data[i] : '@');
    return text;
}

/* ---- processes ---- */

struct load {
    int dirfd;
    const struct cr_page_source *source;
    struct cr_images *images;
};

static void count_number(void *arg, uint64_t value)
{
    (void)value;
    ++*(uint32_t *)arg;
}

static enum rc add_process(const struct image *i, struct wire w, struct cr_images *out,
                           struct err *err)
{
    struct cr_process p = {.comm = NULL};
    struct wire_field f;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        uint32_t *to[] = {[1] = &p.pid, [2] = &p.ppid, [3] = &p.pgid, [4] = &p.sid};
        if (f.number <= 4)
            *to[f.number] = (uint32_t)f.value;
        else if (f.number == 5 && !wire_numbers(&f, count_number, &p.threads))
            return image_broken(i, err);
    }
    if (more < 0 || out->n == IMAGES_PROCESSES_MAX)
        return image_broken(i, err);
    p.comm = mem_strdup("");
    p.exe = mem_strdup("");
    p.cwd = mem_strdup("");
    p.root = mem_strdup("");
    p.arguments = mem_zalloc(sizeof(char *));
    p.environment = mem_zalloc(sizeof(char *));
    out->processes = mem_realloc(out->processes, (out->n + 1) * sizeof(p));
    out->processes[out->n++] = p;
    return RC_OK;
}

static enum rc load_tree(struct load *l, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(l->dirfd, &i, err, "pstree.img");
    while (!rc && more) {
        struct wire w;
        rc = image_next(&i, &w, &more, err);
        if (!rc && more)
            rc = add_process(&i, w, l->images, err);
    }
    return rc;
}

struct capabilities {
    uint64_t bits;
    unsigned words;
};

static void add_capabilities(void *arg, uint64_t value)
{
    struct capabilities *c = arg;
    if (c->words < 2)
        c->bits |= (uint64_t)(uint32_t)value << (32 * c->words++);
}

static void read_creds(const struct wire_field *message, struct cr_process *p)
{
    struct capabilities c = {0};
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number == 1)
            p->uid = (uint32_t)f.value;
        else if (f.number == 2)
            p->gid = (uint32_t)f.value;
        else if (f.number == 11)
            (void)wire_numbers(&f, add_capabilities, &c);
    }
    p->capabilities = c.bits;
}

static void read_task(const struct wire_field *message, struct cr_process *p)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    while (wire_next(&w, &f) == 1)
        if (f.number == 6 && f.is_bytes) {
            free(p->comm);
            p->comm = image_text(&f);
        }
}

static void read_thread(const struct wire_field *message, struct cr_process *p)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    while (wire_next(&w, &f) == 1) {
        if (f.number == 10 && f.is_bytes)
            read_creds(&f, p);
        else if (f.number == 11)
            p->seccomp = (uint32_t)f.value;
    }
}

static enum rc load_core(struct load *l, struct cr_process *p, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    struct wire w;
    struct wire_field f;
    bool more = false;
    int next = 0;
    enum rc rc = image_open(l->dirfd, &i, err, "core-%u.img", p->pid);
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    while (!rc && more && (next = wire_next(&w, &f)) == 1) {
        if (f.number == 3 && f.is_bytes)
            read_task(&f, p);
        else if (f.number == 5 && f.is_bytes)
            read_thread(&f, p);
    }
    return !rc && next < 0 ? image_broken(&i, err) : rc;
}

/* The first message of a small image as numbers by field; absent fields stay as they are. */
static enum rc load_numbers(struct load *l, const char *form, uint32_t pid, uint32_t *values,
                            size_t n, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    char name[64];
    struct wire w;
    struct wire_field f;
    bool more = false;
    (void)snprintf(name, sizeof(name), "%s-%u.img", form, pid);
    enum rc rc = image_open(l->dirfd, &i, err, "%s", name);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    while (!rc && more && wire_next(&w, &f) == 1)
        if (f.number < n)
            values[f.number] = (uint32_t)f.value;
    return rc;
}

static void set_path(struct load *l, uint32_t id, char **path)
{
    const struct cr_file *file = image_files_find(&l->images->files, id);
    if (!file)
        return;
    free(*path);
    *path = mem_strdup(file->text);
}

static enum rc add_descriptor(struct load *l, const struct image *i, struct wire w,
                              struct cr_process *p, struct err *err)
{
    struct wire_field f;
    uint64_t id = 0, fd = 0;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        id = f.number == 1 ? f.value : id;
        fd = f.number == 4 ? f.value : fd;
    }
    if (more < 0 || p->n_descriptors == IMAGES_AREAS_MAX)
        return image_broken(i, err);
    p->descriptors = mem_realloc(p->descriptors, (p->n_descriptors + 1) * sizeof(*p->descriptors));
    p->descriptors[p->n_descriptors++] = (struct cr_descriptor){
        .fd = (uint32_t)fd, .file = image_files_find(&l->images->files, (uint32_t)id)};
    return RC_OK;
}

static enum rc load_descriptors(struct load *l, uint32_t table, struct cr_process *p,
                                struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(l->dirfd, &i, err, "fdinfo-%u.img", table);
    if (rc == RC_NOT_FOUND)
        return RC_OK;
    while (!rc && more) {
        struct wire w;
        rc = image_next(&i, &w, &more, err);
        if (!rc && more)
            rc = add_descriptor(l, &i, w, p, err);
    }
    return rc;
}

static enum rc load_process(struct load *l, struct cr_process *p, struct err *err)
{
    uint32_t ids[4] = {0}, fs[4] = {0};
    enum rc rc = load_core(l, p, err);
    if (!rc)
        rc = load_numbers(l, "ids", p->pid, ids, ARRAY_LEN(ids), err);
    if (!rc)
        rc = load_numbers(l, "fs", p->pid, fs, ARRAY_LEN(fs), err);
    if (!rc)
        rc = load_descriptors(l, ids[2], p, err);
    if (rc)
        return rc;
    set_path(l, fs[1], &p->cwd);
    set_path(l, fs[2], &p->root);
    return image_memory_load(l->dirfd, l->source, &l->images->files, p, err);
}

/* ---- shared memory ---- */

static uint64_t size_of(int dirfd, const char *name)
{
    struct stat st;
    return fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 ? (uint64_t)st.st_size : 0;
}

/* Every page image that no process's pagemap names holds shared memory. */
static enum rc load_shared(struct load *l, struct err *err)
{
    CLEANUP(listing_done) struct listing files = {.n = 0};
    uint64_t all = 0, own = 0;
    enum rc rc = listing_read(l->dirfd, ".", &files, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < files.n; i++)
        if (strncmp(files.name[i], "pages-", 6) == 0)
            all += size_of(l->dirfd, files.name[i]);
    for (size_t i = 0; i < l->images->n; i++)
        for (int k = 0; k < CR_MEMORY_COUNT_; k++)
            own += l->images->processes[i].memory.saved[k];
    l->images->shared_saved = all > own ? all - own : 0;
    return RC_OK;
}

/* ---- all ---- */

static void load_done(struct load *l)
{
    cr_images_freep(&l->images);
}

enum rc cr_images_load(int dirfd, const struct cr_page_source *source, struct cr_images **out,
                       struct err *err)
{
    CLEANUP(load_done) struct load l = {.dirfd = dirfd, .source = source};
    l.images = mem_zalloc(sizeof(*l.images));
    enum rc rc = load_tree(&l, err);
    if (!rc)
        rc = image_files_load(dirfd, &l.images->files, err);
    for (size_t i = 0; !rc && i < l.images->n; i++)
        rc = load_process(&l, &l.images->processes[i], err);
    if (!rc)
        rc = load_shared(&l, err);
    if (rc)
        return rc;
    *out = STEAL(l.images);
    return RC_OK;
}

static void free_list(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

void cr_images_freep(struct cr_images **images)
{
    struct cr_images *x = STEAL(*images);
    for (size_t i = 0; x && i < x->n; i++) {
        struct cr_process *p = &x->processes[i];
        free(p->comm);
        free(p->exe);
        free(p->cwd);
        free(p->root);
        free_list(p->arguments);
        free_list(p->environment);
        free(p->descriptors);
    }
    if (x) {
        image_files_done(&x->files);
        free(x->processes);
    }
    free(x);
}
