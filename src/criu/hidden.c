#include "criu/hidden.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HIDE "lib/pages.so" /* beside sbin/criu */
#define KEEP "lib/keep.so"
#define RECORDS_MAX ((size_t)1 << 22)

/* As tools/criu/pages.c writes it, and keep.c: then start and end are 0.  One that is all 0 is
 * ours: no keepers. */
struct record {
    int32_t pid;
    int32_t keeper;
    uint64_t start, end;
};

static bool has(const char *criu, const char *shim)
{
    const char *slash = strrchr(criu, '/');
    if (!slash)
        return false;
    CLEANUP(mem_freep)
    char *path = mem_asprintf("%.*s/../%s", (int)(slash - criu), criu, shim);
    return access(path, R_OK) == 0;
}

bool cr_can_hide(const char *criu)
{
    return has(criu, HIDE);
}

bool cr_can_keep(const char *criu)
{
    return has(criu, KEEP);
}

static int by_place(const void *a, const void *b)
{
    const struct cr_hidden *x = a, *y = b;
    if (x->pid != y->pid)
        return x->pid < y->pid ? -1 : 1;
    return (x->start > y->start) - (x->start < y->start);
}

/* CRIU may look at a range more than once. */
static size_t unite(struct cr_hidden *list, size_t n)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        struct cr_hidden *last = kept ? &list[kept - 1] : NULL;
        if (last && last->pid == list[i].pid && list[i].start <= last->end)
            last->end = list[i].end > last->end ? list[i].end : last->end;
        else
            list[kept++] = list[i];
    }
    return kept;
}

static bool makes_sense(const struct record *r)
{
    if (!r->pid)
        return !r->keeper && !r->start && !r->end;
    if (r->keeper)
        return r->pid > 0 && r->keeper > 0 && !r->start && !r->end;
    return r->pid > 0 && r->start < r->end && r->start % CR_PAGE == 0 && r->end % CR_PAGE == 0;
}

static enum rc read_records(int fd, struct record **out, size_t *out_n, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || lseek(fd, 0, SEEK_SET) < 0)
        return err_sys(err, "read what CRIU has not saved");
    size_t size = (size_t)st.st_size, n = size / sizeof(struct record), got = 0;
    if (size % sizeof(struct record) || n > RECORDS_MAX)
        return err_set(err, RC_CORRUPT, "the list of what CRIU has not saved is cut off");
    CLEANUP(mem_freep) struct record *records = mem_alloc(size + 1);
    enum rc rc = sys_read_full(fd, records, size, &got, err);
    for (size_t i = 0; !rc && i < n; i++)
        if (!makes_sense(&records[i]))
            rc = err_set(err, RC_CORRUPT, "the list of what CRIU has not saved makes no sense");
    if (rc)
        return rc;
    *out = STEAL(records);
    *out_n = n;
    return RC_OK;
}

enum rc cr_keepers_decline(int fd, struct err *err)
{
    const struct record nobody = {0};
    return sys_write_all(fd, &nobody, sizeof(nobody), err);
}

enum rc cr_hidden_read(int fd, struct cr_hidden **out, size_t *out_n, struct err *err)
{
    CLEANUP(mem_freep) struct record *records = NULL;
    size_t all = 0, n = 0;
    enum rc rc = read_records(fd, &records, &all, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) struct cr_hidden *list = mem_zalloc((all + 1) * sizeof(*list));
    for (size_t i = 0; i < all; i++)
        if (records[i].pid && !records[i].keeper)
            list[n++] =
                (struct cr_hidden){(uint32_t)records[i].pid, records[i].start, records[i].end};
    qsort(list, n, sizeof(*list), by_place);
    *out_n = unite(list, n);
    *out = n ? STEAL(list) : NULL;
    return RC_OK;
}

enum rc cr_keepers_read(int fd, struct cr_keeper **out, size_t *out_n, struct err *err)
{
    CLEANUP(mem_freep) struct record *records = NULL;
    size_t all = 0, n = 0;
    enum rc rc = read_records(fd, &records, &all, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) struct cr_keeper *list = mem_zalloc((all + 1) * sizeof(*list));
    for (size_t i = 0; i < all; i++)
        if (records[i].keeper)
            list[n++] = (struct cr_keeper){(uint32_t)records[i].pid, (uint32_t)records[i].keeper};
    *out_n = n;
    *out = n ? STEAL(list) : NULL;
    return RC_OK;
}

enum rc cr_pagemap_add(struct cr_pagemap *p, const struct cr_run *runs, size_t n, struct err *err)
{
    size_t i = 0, k = 0, total = p->n_runs + n;
    uint64_t present = 0, absent = 0, end = 0;
    CLEANUP(mem_freep) struct cr_run *all = mem_alloc((total + 1) * sizeof(*all));
    for (size_t at = 0; at < total; at++) {
        bool ours = i == p->n_runs || (k < n && runs[k].address < p->runs[i].address);
        struct cr_run r = ours ? runs[k++] : p->runs[i++];
        if (ours)
            r.flags = CR_RUN_LAZY;
        uint64_t *counter = r.flags & CR_RUN_PRESENT ? &present : &absent;
        if (r.address < end)
            return err_set(err, RC_CORRUPT, "'%s' has the page at %#jx twice", p->name,
                           (uintmax_t)r.address);
        r.at = *counter;
        *counter += r.pages;
        end = r.address + r.pages * CR_PAGE;
        all[at] = r;
    }
    free(p->runs);
    p->runs = STEAL(all);
    p->n_runs = total;
    p->present = present;
    p->absent = absent;
    return RC_OK;
}
