#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/images_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGE 4096ULL                    /* of x86-64, the only machine whose images we make */
#define STRINGS_MAX ((uint64_t)4 << 20) /* bytes of arguments or environment */

/* CRIU's status bits of a mapping, and a flag of mmap(). */
enum {
    AREA_VSYSCALL = 1 << 2,
    AREA_VDSO = 1 << 3,
    AREA_HEAP = 1 << 5,
    AREA_FILE_PRIVATE = 1 << 6,
    AREA_FILE_SHARED = 1 << 7,
    AREA_ANON_SHARED = 1 << 8,
    AREA_ANON_PRIVATE = 1 << 9,
    AREA_SYSV = 1 << 10,
    AREA_VVAR = 1 << 12,
    AREA_MEMFD = 1 << 14,
    FLAG_GROWS_DOWN = 0x100,
};

struct area {
    uint64_t start, end;
    enum cr_memory kind;
};

/* Pages that follow each other in memory and in the image. */
struct run {
    uint64_t start, pages;
    uint64_t at; /* page number in the image, or among those that are not in it */
    bool absent; /* not in the image: lazy */
};

struct memory {
    struct area *areas;
    size_t n_areas;
    struct run *runs;
    size_t n_runs;
    uint64_t present, absent; /* pages */
    uint32_t pages_id;
    uint64_t args[2], env[2];
    uint32_t exe;
};

static void memory_done(struct memory *m)
{
    free(m->areas);
    free(m->runs);
}

enum cr_memory cr_memory_kind(uint64_t status, uint64_t flags)
{
    static const struct {
        uint64_t bits;
        enum cr_memory kind;
    } kinds[] = {{AREA_VSYSCALL | AREA_VDSO | AREA_VVAR, CR_MEMORY_OTHER},
                 {AREA_MEMFD, CR_MEMORY_MEMFD},
                 {AREA_SYSV, CR_MEMORY_SYSV},
                 {AREA_HEAP, CR_MEMORY_HEAP},
                 {AREA_FILE_PRIVATE, CR_MEMORY_FILE_PRIVATE},
                 {AREA_FILE_SHARED, CR_MEMORY_FILE_SHARED},
                 {AREA_ANON_SHARED, CR_MEMORY_SHARED},
                 {AREA_ANON_PRIVATE, CR_MEMORY_ANON}};
    if (flags & FLAG_GROWS_DOWN)
        return CR_MEMORY_STACK;
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (status & kinds[i].bits)
            return kinds[i].kind;
    return CR_MEMORY_OTHER;
}

/* Anonymous shared memory is a memfd of this name to CRIU. */
static bool is_anonymous(const struct cr_files *files, uint64_t id)
{
    const struct cr_file *file = image_files_find(files, (uint32_t)id);
    return file && strncmp(file->text, "/dev/zero", 9) == 0;
}

static bool add_area(struct memory *m, const struct cr_files *files,
                     const struct wire_field *message)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    struct area a = {0};
    uint64_t status = 0, flags = 0, id = 0;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        a.start = f.number == 1 ? f.value : a.start;
        a.end = f.number == 2 ? f.value : a.end;
        id = f.number == 4 ? f.value : id;
        flags = f.number == 6 ? f.value : flags;
        status = f.number == 7 ? f.value : status;
    }
    if (more < 0 || a.end < a.start || m->n_areas == IMAGES_AREAS_MAX)
        return false;
    a.kind = cr_memory_kind(status, flags);
    if (a.kind == CR_MEMORY_MEMFD && is_anonymous(files, id))
        a.kind = CR_MEMORY_SHARED;
    m->areas = mem_realloc(m->areas, (m->n_areas + 1) * sizeof(*m->areas));
    m->areas[m->n_areas++] = a;
    return true;
}

static enum rc load_map(int dirfd, const struct cr_files *files, uint32_t pid, struct memory *m,
                        struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    struct wire w;
    struct wire_field f;
    bool more = false;
    int next = 0;
    enum rc rc = image_open(dirfd, &i, err, "mm-%u.img", pid);
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    if (rc || !more)
        return rc;
    while ((next = wire_next(&w, &f)) == 1) {
        if (f.number >= 8 && f.number <= 11)
            (f.number < 10 ? m->args : m->env)[f.number & 1] = f.value;
        else if (f.number == 12)
            m->exe = (uint32_t)f.value;
        else if (f.number == 14 && f.is_bytes && !add_area(m, files, &f))
            return image_broken(&i, err);
    }
    return next < 0 ? image_broken(&i, err) : RC_OK;
}

/* ---- pages ---- */

static enum rc add_run(struct image *i, struct wire w, struct memory *m, struct err *err)
{
    enum { PARENT = 1, LAZY = 2, PRESENT = 4 };
    struct wire_field f;
    uint64_t start = 0, pages = 0, flags = PRESENT;
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        start = f.number == 1 ? f.value : start;
        pages = f.number == 2 || f.number == 5 ? f.value : pages;
        flags = f.number == 4 ? f.value : f.number == 3 && f.value ? PARENT : flags;
    }
    if (more < 0 || pages > UINT64_MAX / PAGE / 4 || m->n_runs == IMAGES_AREAS_MAX)
        return image_broken(i, err);
    bool absent = !(flags & PRESENT);
    uint64_t *counter = absent ? &m->absent : &m->present;
    if (absent && !(flags & LAZY))
        return RC_OK;
    m->runs = mem_realloc(m->runs, (m->n_runs + 1) * sizeof(*m->runs));
    m->runs[m->n_runs++] =
        (struct run){.start = start, .pages = pages, .at = *counter, .absent = absent};
    *counter += pages;
    return *counter > UINT64_MAX / PAGE / 4 ? image_broken(i, err) : RC_OK;
}

static enum rc load_runs(int dirfd, uint32_t pid, struct memory *m, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    struct wire w;
    struct wire_field f;
    bool more = false;
    enum rc rc = image_open(dirfd, &i, err, "pagemap-%u.img", pid);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* it has no pages of its own */
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    while (!rc && more && wire_next(&w, &f) == 1)
        m->pages_id = f.number == 1 ? (uint32_t)f.value : m->pages_id;
    while (!rc && more) {
        rc = image_next(&i, &w, &more, err);
        if (!rc && more)
            rc = add_run(&i, w, m, err);
    }
    return rc;
}

static int by_start(const void *a, const void *b)
{
    const struct area *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

/* Areas are sorted, runs are in the order of memory: one walk over both. */
static void count(const struct memory *m, struct cr_memory_use *out)
{
    size_t a = 0;
    for (size_t i = 0; i < m->n_areas; i++)
        out->mapped[m->areas[i].kind] += m->areas[i].end - m->areas[i].start;
    for (size_t i = 0; i < m->n_runs; i++) {
        uint64_t start = m->runs[i].start, bytes = m->runs[i].pages * PAGE;
        while (a < m->n_areas && m->areas[a].end <= start)
            a++;
        for (size_t k = a; bytes && k < m->n_areas && m->areas[k].start <= start; k++) {
            uint64_t room = m->areas[k].end > start ? m->areas[k].end - start : 0;
            uint64_t part = bytes < room ? bytes : room;
            out->saved[m->areas[k].kind] += part;
            start += part;
            bytes -= part;
        }
        out->saved[CR_MEMORY_OTHER] += bytes;
    }
}

/* ---- arguments and environment ---- */

struct pages {
    const struct cr_page_source *source; /* NULL: */
    int fd;                              /* a file */
};

static enum rc read_page(const struct memory *m, const struct pages *from, uint64_t address,
                         char page[PAGE])
{
    memset(page, 0, PAGE); /* a page that was never written */
    for (size_t i = 0; i < m->n_runs; i++) {
        const struct run *r = &m->runs[i];
        if (address < r->start || address - r->start >= r->pages * PAGE)
            continue;
        uint64_t at = r->at + (address - r->start) / PAGE;
        ssize_t n;
        if (from->source)
            return from->source->page(from->source->arg, m->pages_id, r->absent, at, page, NULL);
        if (r->absent)
            return RC_NOT_FOUND;
        do
            n = pread(from->fd, page, PAGE, (off_t)(at * PAGE));
        while (n < 0 && errno == EINTR);
        return n == (ssize_t)PAGE ? RC_OK : RC_CORRUPT;
    }
    return RC_OK;
}

static char **split(const struct buf *text)
{
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < text->len; i++)
        n += text->data[i] == '\0';
    char **list = mem_zalloc((n + 2) * sizeof(*list));
    for (size_t at = 0; at < text->len; at += strlen(text->data + at) + 1)
        list[kept++] = mem_strdup(text->data + at);
    return list;
}

/* Strings between two addresses; an empty list when they cannot be had. */
static char **read_strings(int dirfd, const struct cr_page_source *source, const struct memory *m,
                           const uint64_t range[2])
{
    char name[64], page[PAGE];
    CLEANUP(buf_done) struct buf text = {.max = STRINGS_MAX + PAGE};
    (void)snprintf(name, sizeof(name), "pages-%u.img", m->pages_id);
    CLEANUP(fd_closep) int fd = sys_openat(dirfd, name, O_RDONLY | O_NOFOLLOW, 0);
    const struct pages from = {source, fd};
    if ((fd < 0 && !source) || range[1] < range[0] || range[1] - range[0] > STRINGS_MAX)
        return split(&text);
    for (uint64_t at = range[0]; at < range[1];) {
        uint64_t base = at / PAGE * PAGE, end = base + PAGE < range[1] ? base + PAGE : range[1];
        if (read_page(m, &from, base, page) != RC_OK)
            break;
        buf_add(&text, page + (at - base), (size_t)(end - at));
        at = end;
    }
    return split(&text);
}

enum rc image_memory_load(int dirfd, const struct cr_page_source *source,
                          const struct cr_files *files, struct cr_process *p, struct err *err)
{
    CLEANUP(memory_done) struct memory m = {0};
    enum rc rc = load_map(dirfd, files, p->pid, &m, err);
    if (rc == RC_NOT_FOUND)
        return RC_OK; /* a zombie */
    if (!rc)
        rc = load_runs(dirfd, p->pid, &m, err);
    if (rc)
        return rc;
    if (m.n_areas)
        qsort(m.areas, m.n_areas, sizeof(*m.areas), by_start);
    count(&m, &p->memory);
    free(p->arguments);
    free(p->environment);
    p->arguments = read_strings(dirfd, source, &m, m.args);
    p->environment = read_strings(dirfd, source, &m, m.env);
    const struct cr_file *exe = image_files_find(files, m.exe);
    if (exe) {
        free(p->exe);
        p->exe = mem_strdup(exe->text);
    }
    return RC_OK;
}
