#include "engine/plain.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/listing.h"
#include "base/mem.h"
#include "base/sys.h"
#include "criu/pagemap.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_MAX ((uint64_t)64 << 20) /* of images other than page images */
#define WORTH_MIN ((uint64_t)4 << 20) /* less is not worth the copies */
#define PIECE_PAGES ((uint64_t)64)

static enum rc left_to_criu(struct err *err, const char *why)
{
    return err_set(err, RC_UNSUPPORTED, "%s", why);
}

/* ---- the small images ---- */

static bool is_small_image(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcmp(name + n - 4, ".img") == 0 && strncmp(name, "pages-", 6) != 0;
}

static enum rc copy_one(const struct store_entry *e, const char *name, struct plain *p,
                        uint64_t *total, struct err *err)
{
    struct stat st;
    int from = store_entry_fd(e);
    if (fstatat(from, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, "'%s'", name);
    *total += (uint64_t)st.st_size;
    if (!S_ISREG(st.st_mode) || *total > COPY_MAX)
        return left_to_criu(err, "its images are large");
    return store_entry_manifest(e) ? store_entry_copy(e, name, p->dir, err)
                                   : fs_copy_file(from, name, p->dir, name, 0600, err);
}

static enum rc copy_images(const struct store_entry *e, struct plain *p, struct err *err)
{
    uint64_t total = 0;
    const struct manifest *m = store_entry_manifest(e);
    for (size_t i = 0; m && i < m->n; i++) {
        const char *name = m->files[i].name;
        enum rc rc = is_small_image(name) ? copy_one(e, name, p, &total, err) : RC_OK;
        if (rc)
            return rc;
    }
    if (m)
        return RC_OK;
    CLEANUP(listing_done) struct listing files = {.n = 0};
    enum rc rc = listing_read(store_entry_fd(e), ".", &files, err);
    for (size_t i = 0; !rc && i < files.n; i++)
        rc = is_small_image(files.name[i]) ? copy_one(e, files.name[i], p, &total, err) : RC_OK;
    return rc;
}

/* ---- parts ---- */

/* Pages of a run from an address on that are in one mapping, or in none. */
static uint64_t same_mapping(const struct cr_pagemap *map, uint64_t address, uint64_t pages,
                             const struct cr_mapping **out)
{
    *out = cr_mapping_of(map, address);
    uint64_t room = *out ? ((*out)->end - address) / CR_PAGE : pages;
    return room < pages ? room : pages;
}

static void add_part(struct plain_image *i, struct plain_part part)
{
    struct plain_part *last = i->n_parts ? &i->parts[i->n_parts - 1] : NULL;
    bool kept = part.address == PLAIN_KEPT;
    if (last && kept && last->address == PLAIN_KEPT) {
        last->pages += part.pages;
        return;
    }
    if (!i->parts || (i->n_parts & (i->n_parts - 1)) == 0)
        i->parts = mem_realloc(i->parts, (i->n_parts ? i->n_parts * 2 : 1) * sizeof(*i->parts));
    i->parts[i->n_parts++] = part;
}

struct parting {
    const struct cr_pagemap *map;
    struct plain *plain;
    struct plain_image *image;
    struct cr_run *runs; /* what stays CRIU's */
    size_t n_runs;
    uint64_t kept; /* pages */
};

static void keep(struct parting *p, uint64_t address, uint64_t pages)
{
    struct cr_run *last = p->n_runs ? &p->runs[p->n_runs - 1] : NULL;
    p->plain->eager_bytes += pages * CR_PAGE;
    p->kept += pages;
    if (last && last->address + last->pages * CR_PAGE == address) {
        last->pages += pages;
        return;
    }
    if (!p->runs || (p->n_runs & (p->n_runs - 1)) == 0)
        p->runs = mem_realloc(p->runs, (p->n_runs ? p->n_runs * 2 : 1) * sizeof(*p->runs));
    p->runs[p->n_runs++] =
        (struct cr_run){.address = address, .pages = pages, .flags = CR_RUN_PRESENT};
}

/* A run may reach over several mappings. */
static void part_run(struct parting *p, const struct cr_run *run)
{
    uint64_t address = run->address, left = run->pages, first = run->at;
    while (left > 0) {
        const struct cr_mapping *m = NULL;
        uint64_t n = same_mapping(p->map, address, left, &m);
        bool ours = m && (run->flags & CR_RUN_LAZY) && cr_mapping_can_wait(m);
        add_part(p->image, (struct plain_part){.first = first,
                                               .pages = n,
                                               .address = ours ? address : PLAIN_KEPT,
                                               .at = p->kept});
        if (ours)
            p->plain->gap_bytes += n * CR_PAGE;
        else
            keep(p, address, n);
        address += n * CR_PAGE;
        first += n;
        left -= n;
    }
}

/* ---- one page image ---- */

static enum rc open_image(const struct store_entry *e, const struct cr_pagemap *map,
                          struct plain_image *i, struct err *err)
{
    struct stat st;
    const struct manifest *m = store_entry_manifest(e);
    (void)snprintf(i->name, sizeof(i->name), "pages-%u.img", map->pages_id);
    const struct manifest_file *f = m ? manifest_find(m, i->name) : NULL;
    i->pid = map->pid;
    i->pages = map->present;
    i->has_digest = f != NULL;
    if (f)
        i->digest = f->digest;
    if (map->absent || (m && !f))
        return left_to_criu(err, "its page images are not whole");
    i->from = sys_openat(store_entry_fd(e), i->name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    if (i->from < 0 || fstat(i->from, &st) < 0)
        return err_sys(err, "open '%s'", i->name);
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != i->pages * CR_PAGE)
        return left_to_criu(err, "its page images are of another size than its page maps say");
    return RC_OK;
}

static enum rc read_pages(int fd, uint64_t first, uint64_t n, void *out, struct err *err)
{
    size_t want = n * CR_PAGE;
    for (size_t got = 0; got < want;) {
        ssize_t r = pread(fd, (uint8_t *)out + got, want - got, (off_t)(first * CR_PAGE + got));
        if (r < 0 && errno == EINTR)
            continue;
        if (r <= 0)
            return r < 0 ? err_sys(err, "read a page image")
                         : err_set(err, RC_CORRUPT, "a page image has become shorter");
        got += (size_t)r;
    }
    return RC_OK;
}

static enum rc copy_pages(const struct plain_image *i, const struct plain_part *p, struct err *err)
{
    uint8_t piece[PIECE_PAGES * CR_PAGE];
    for (uint64_t done = 0, n; done < p->pages; done += n) {
        n = p->pages - done < PIECE_PAGES ? p->pages - done : PIECE_PAGES;
        enum rc rc = read_pages(i->from, p->first + done, n, piece, err);
        if (!rc)
            rc = sys_write_all(i->copy, piece, n * CR_PAGE, err);
        if (rc)
            return rc;
    }
    return RC_OK;
}

/* What CRIU must restore of it. */
static enum rc write_copy(struct parting *p, struct err *err)
{
    struct plain_image *i = p->image;
    i->copy = sys_openat(p->plain->dir, i->name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
    if (i->copy < 0)
        return err_sys(err, "make '%s'", i->name);
    for (size_t k = 0; k < i->n_parts; k++) {
        enum rc rc = i->parts[k].address == PLAIN_KEPT ? copy_pages(i, &i->parts[k], err) : RC_OK;
        if (rc)
            return rc;
    }
    return cr_pagemap_save(p->plain->dir, p->map->name, p->map->pages_id, p->runs, p->n_runs, err);
}

/* ---- all ---- */

static void part_image(struct parting *p)
{
    for (size_t k = 0; k < p->map->n_runs; k++)
        part_run(p, &p->map->runs[k]);
}

static enum rc part_all(const struct store_entry *e, const struct cr_pagemaps *maps,
                        struct parting *list, struct plain *out, struct err *err)
{
    for (size_t i = 0; i < maps->n; i++) {
        struct plain_image *image = &out->images[out->n_images++];
        *image = (struct plain_image){.from = -1, .copy = -1};
        list[i] = (struct parting){.map = &maps->list[i], .plain = out, .image = image};
        enum rc rc = open_image(e, list[i].map, image, err);
        if (rc)
            return rc;
        part_image(&list[i]);
    }
    if (out->gap_bytes < WORTH_MIN || out->gap_bytes < out->eager_bytes)
        return left_to_criu(err, "there is little that could be written by others");
    for (size_t i = 0; i < maps->n; i++) {
        enum rc rc = write_copy(&list[i], err);
        if (rc)
            return rc;
    }
    return RC_OK;
}

static enum rc fill_in(const struct store_entry *e, struct plain *p, struct err *err)
{
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps maps = {0};
    enum rc rc = fs_private_dir(&p->dir, err);
    if (!rc)
        rc = copy_images(e, p, err);
    if (!rc)
        rc = cr_pagemaps_load(p->dir, &maps, err);
    if (rc)
        return rc;
    CLEANUP(mem_freep) struct parting *list = mem_zalloc((maps.n + 1) * sizeof(*list));
    p->images = mem_zalloc((maps.n + 1) * sizeof(*p->images));
    rc = part_all(e, &maps, list, p, err);
    for (size_t i = 0; i < maps.n; i++)
        free(list[i].runs);
    return rc;
}

enum rc plain_make(const struct store_entry *e, struct plain *out, struct err *err)
{
    CLEANUP(plain_done) struct plain p = PLAIN_INIT;
    enum rc rc = fill_in(e, &p, err);
    if (rc)
        return err_ctx(err, rc, "prepare the images");
    *out = p;
    p = (struct plain)PLAIN_INIT;
    return RC_OK;
}

void plain_done(struct plain *p)
{
    for (size_t i = 0; i < p->n_images; i++) {
        fd_closep(&p->images[i].from);
        fd_closep(&p->images[i].copy);
        free(p->images[i].parts);
    }
    free(p->images);
    fd_closep(&p->dir);
    *p = (struct plain)PLAIN_INIT;
}
