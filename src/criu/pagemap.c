#include "criu/pagemap.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/images_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define RUNS_MAX (1U << 26)
#define ADDRESS_MAX ((uint64_t)1 << 57)
#define MAGIC_COMMON 0x54564319U
#define MAGIC_PAGEMAP 0x56084025U

/* ---- runs ---- */

/* Room for one more; the list was only ever grown by this. */
static void *grow(void *list, size_t n, size_t size)
{
    return !list || (n & (n - 1)) == 0 ? mem_realloc(list, (n ? n * 2 : 1) * size) : list;
}

static enum rc add_run(const struct image *i, struct wire w, struct cr_pagemap *p, struct err *err)
{
    struct wire_field f;
    struct cr_run r = {.flags = CR_RUN_PRESENT};
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        if (f.number == 1)
            r.address = f.value;
        else if ((f.number == 2 || f.number == 5) && f.value)
            r.pages = f.value;
        else if (f.number == 3 && f.value)
            r.flags = CR_RUN_PARENT;
        else if (f.number == 4)
            r.flags = (uint32_t)f.value;
    }
    const struct cr_run *last = p->n_runs ? &p->runs[p->n_runs - 1] : NULL;
    if (more < 0 || p->n_runs == RUNS_MAX || r.pages == 0 || r.address % CR_PAGE ||
        r.address > ADDRESS_MAX || r.pages > ADDRESS_MAX / CR_PAGE ||
        (last && r.address < last->address + last->pages * CR_PAGE))
        return image_broken(i, err);
    if (!(r.flags & (CR_RUN_PRESENT | CR_RUN_LAZY)) || (r.flags & CR_RUN_PARENT))
        return err_set(err, RC_UNSUPPORTED, "%s refers to an older checkpoint's images", i->name);
    uint64_t *counter = r.flags & CR_RUN_PRESENT ? &p->present : &p->absent;
    r.at = *counter;
    *counter += r.pages;
    if (*counter > ADDRESS_MAX / CR_PAGE)
        return image_broken(i, err);
    p->runs = grow(p->runs, p->n_runs, sizeof(r));
    p->runs[p->n_runs++] = r;
    return RC_OK;
}

static enum rc load_runs(int dirfd, struct cr_pagemap *p, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    struct wire w;
    struct wire_field f;
    bool more = false, has_id = false;
    enum rc rc = image_open(dirfd, &i, err, "%s", p->name);
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    while (!rc && more && wire_next(&w, &f) == 1)
        if (f.number == 1) {
            p->pages_id = (uint32_t)f.value;
            has_id = true;
        }
    if (!rc && !has_id)
        return image_broken(&i, err);
    while (!rc && more) {
        rc = image_next(&i, &w, &more, err);
        if (!rc && more)
            rc = add_run(&i, w, p, err);
    }
    return rc;
}

/* ---- mappings ---- */

static bool add_mapping(struct cr_pagemap *p, const struct wire_field *message)
{
    struct wire w = wire_of(message->data, message->len);
    struct wire_field f;
    struct cr_mapping m = {0};
    uint64_t advice = 0; /* of madvise(): a bit for each that is in force */
    int more;
    while ((more = wire_next(&w, &f)) == 1) {
        m.start = f.number == 1 ? f.value : m.start;
        m.end = f.number == 2 ? f.value : m.end;
        m.prot = f.number == 5 ? (uint32_t)f.value : m.prot;
        m.flags = f.number == 6 ? (uint32_t)f.value : m.flags;
        m.status = f.number == 7 ? (uint32_t)f.value : m.status;
        advice = f.number == 9 ? f.value : advice;
    }
    if (more < 0 || m.end <= m.start || m.start % CR_PAGE || m.end % CR_PAGE ||
        p->n_mappings == IMAGES_AREAS_MAX ||
        (p->n_mappings && m.start < p->mappings[p->n_mappings - 1].end))
        return false;
    m.forks = !(advice & ((uint64_t)1 << MADV_DONTFORK | (uint64_t)1 << MADV_WIPEONFORK));
    p->mappings = grow(p->mappings, p->n_mappings, sizeof(m));
    p->mappings[p->n_mappings++] = m;
    return true;
}

static enum rc load_mappings(int dirfd, struct cr_pagemap *p, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    struct wire w;
    struct wire_field f;
    bool more = false;
    int next = 0;
    enum rc rc = image_open(dirfd, &i, err, "mm-%u.img", p->pid);
    if (!rc)
        rc = image_next(&i, &w, &more, err);
    while (!rc && more && (next = wire_next(&w, &f)) == 1)
        if (f.number == 14 && f.is_bytes && !add_mapping(p, &f))
            return image_broken(&i, err);
    if (!rc && next < 0)
        return image_broken(&i, err);
    return rc;
}

/* ---- who inherited what ---- */

static struct cr_pagemap *of_process(const struct cr_pagemaps *all, uint32_t pid)
{
    for (size_t i = 0; pid && i < all->n; i++)
        if (all->list[i].pid == pid)
            return &all->list[i];
    return NULL;
}

/* CRIU shares pages between mappings of parent and child with the same bounds (its
 * check_cow_vmas() asks for more; what we find beyond that only is restored a little slower). */
static void mark_inherited(struct cr_pagemap *parent, struct cr_pagemap *child)
{
    size_t i = 0, k = 0;
    while (i < parent->n_mappings && k < child->n_mappings) {
        struct cr_mapping *a = &parent->mappings[i], *b = &child->mappings[k];
        if (a->start == b->start && a->end == b->end &&
            !((a->flags ^ b->flags) & (MAP_GROWSDOWN | MAP_ANONYMOUS)))
            a->inherited = b->inherited = true;
        i += a->start <= b->start;
        k += b->start <= a->start;
    }
}

static enum rc find_inherited(int dirfd, struct cr_pagemaps *all, struct err *err)
{
    CLEANUP(image_done) struct image i = {.at = 0};
    bool more = true;
    enum rc rc = image_open(dirfd, &i, err, "pstree.img");
    while (!rc && more) {
        struct wire w;
        struct wire_field f;
        uint32_t pid = 0, ppid = 0;
        rc = image_next(&i, &w, &more, err);
        while (!rc && more && wire_next(&w, &f) == 1) {
            pid = f.number == 1 ? (uint32_t)f.value : pid;
            ppid = f.number == 2 ? (uint32_t)f.value : ppid;
        }
        struct cr_pagemap *child = of_process(all, pid), *parent = of_process(all, ppid);
        if (!rc && more && child && parent)
            mark_inherited(parent, child);
    }
    return rc;
}

/* ---- a directory ---- */

static enum rc load_one(int dirfd, const char *name, struct cr_pagemaps *all, struct err *err)
{
    char canonical[40];
    uint32_t id = 0;
    struct cr_pagemap p = {.pid = 0};
    bool shared = sscanf(name, "pagemap-shmem-%" SCNu32 ".img", &id) == 1;
    if (!shared && sscanf(name, "pagemap-%" SCNu32 ".img", &id) != 1)
        return RC_OK;
    (void)snprintf(canonical, sizeof(canonical), shared ? "pagemap-shmem-%u.img" : "pagemap-%u.img",
                   id);
    if (strcmp(canonical, name) != 0 || (!shared && id == 0))
        return RC_OK;
    memcpy(p.name, canonical, sizeof(p.name));
    p.pid = shared ? 0 : id;
    if (all->n == (size_t)4 * IMAGES_PROCESSES_MAX)
        return err_set(err, RC_TOO_BIG, "more than %zu page maps", all->n);
    all->list = grow(all->list, all->n, sizeof(p));
    all->list[all->n] = p;
    struct cr_pagemap *new = &all->list[all->n++];
    enum rc rc = load_runs(dirfd, new, err);
    return rc || shared ? rc : load_mappings(dirfd, new, err);
}

enum rc cr_pagemaps_load(int dirfd, struct cr_pagemaps *out, struct err *err)
{
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps all = {0};
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(dirfd, ".", &files, err);
    for (size_t i = 0; !rc && i < files.n; i++)
        rc = load_one(dirfd, files.name[i], &all, err);
    if (!rc && all.n)
        rc = find_inherited(dirfd, &all, err);
    if (rc)
        return rc;
    *out = all;
    all = (struct cr_pagemaps){0};
    return RC_OK;
}

void cr_pagemaps_done(struct cr_pagemaps *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->list[i].runs);
        free(p->list[i].mappings);
    }
    free(p->list);
    *p = (struct cr_pagemaps){0};
}

/* ---- writing ---- */

static uint8_t *put_number(uint8_t *at, unsigned field, uint64_t value)
{
    *at++ = (uint8_t)(field << 3);
    for (; value > 127; value >>= 7)
        *at++ = (uint8_t)(value | 128);
    *at++ = (uint8_t)value;
    return at;
}

static void put_message(struct buf *out, const uint8_t *message, size_t len)
{
    uint32_t n = (uint32_t)len; /* in the machine's order, as CRIU writes it */
    buf_add(out, &n, sizeof(n));
    buf_add(out, message, len);
}

enum rc cr_pagemap_save(int dirfd, const char *name, uint32_t pages_id, const struct cr_run *runs,
                        size_t n, struct err *err)
{
    static const uint32_t magic[2] = {MAGIC_COMMON, MAGIC_PAGEMAP};
    CLEANUP(buf_done) struct buf out = {.max = (size_t)1 << 32};
    uint8_t message[64];
    buf_add(&out, magic, sizeof(magic));
    put_message(&out, message, (size_t)(put_number(message, 1, pages_id) - message));
    for (size_t i = 0; i < n; i++) {
        uint8_t *end = put_number(message, 1, runs[i].address);
        end = put_number(end, 2, 0); /* the 32-bit count of older CRIUs */
        end = put_number(end, 4, runs[i].flags);
        end = put_number(end, 5, runs[i].pages);
        put_message(&out, message, (size_t)(end - message));
    }
    return fs_write_whole(dirfd, name, out.data, out.len, 0600, err);
}

/* ---- asking ---- */

const struct cr_mapping *cr_mapping_of(const struct cr_pagemap *p, uint64_t address)
{
    size_t low = 0, high = p->n_mappings;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (p->mappings[middle].end <= address)
            low = middle + 1;
        else
            high = middle;
    }
    return low < p->n_mappings && p->mappings[low].start <= address ? &p->mappings[low] : NULL;
}

bool cr_mapping_can_wait(const struct cr_mapping *m)
{
    /* CRIU's status bits: vsyscall, vdso, socket, vvar, aio ring, shadow stack, guard, uprobes, and
     * what a plugin restores. */
    const uint32_t special =
        1 << 2 | 1 << 3 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 15 | 1 << 16 | 1 << 17 | 1 << 27;
    const uint32_t want = MAP_PRIVATE | MAP_ANONYMOUS;
    const uint32_t refuse = MAP_LOCKED | MAP_HUGETLB | MAP_GROWSDOWN;
    return (m->flags & want) == want && !(m->flags & refuse) && (m->prot & PROT_WRITE) &&
           (m->prot & PROT_READ) && !m->inherited && !(m->status & special);
}
