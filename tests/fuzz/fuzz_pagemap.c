/* CRIU's page maps: what is loaded does not contradict itself, and is the same after it was saved.
 * The input: lengths of pagemap-1.img and mm-1.img (16 bits each), these files, then pstree.img. */
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"
#include "criu/pagemap.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int open_dir(void)
{
    static int dir = -1;
    char path[] = "/dev/shm/fuzz-pagemap-XXXXXX";
    if (dir >= 0)
        return dir;
    if (!mkdtemp(path))
        abort();
    dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        abort();
    return dir;
}

static size_t write_part(const char *name, const uint8_t *data, size_t size, size_t len)
{
    len = len < size ? len : size;
    if (fs_write_whole(open_dir(), name, data, len, 0600, NULL) != RC_OK)
        abort();
    return len;
}

static void walk(const struct cr_pagemap *p)
{
    uint64_t next = 0, present = 0, absent = 0;
    for (size_t i = 0; i < p->n_runs; i++) {
        const struct cr_run *r = &p->runs[i];
        uint64_t *at = r->flags & CR_RUN_PRESENT ? &present : &absent;
        if (r->address < next || r->pages == 0 || r->at != *at)
            abort();
        next = r->address + r->pages * CR_PAGE;
        *at += r->pages;
        const struct cr_mapping *m = cr_mapping_of(p, r->address);
        if (m && (r->address < m->start || r->address >= m->end))
            abort();
        if (m)
            (void)cr_mapping_can_wait(m);
    }
    if (present != p->present || absent != p->absent)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps once = {0};
    CLEANUP(cr_pagemaps_done) struct cr_pagemaps twice = {0};
    if (size < 4)
        return 0;
    size_t map = (size_t)data[0] | (size_t)data[1] << 8,
           mm = (size_t)data[2] | (size_t)data[3] << 8;
    data += 4;
    size -= 4;
    size_t n = write_part("pagemap-1.img", data, size, map);
    n += write_part("mm-1.img", data + n, size - n, mm);
    (void)write_part("pstree.img", data + n, size - n, size - n);
    if (cr_pagemaps_load(open_dir(), &once, NULL) != RC_OK)
        return 0;
    if (once.n != 1)
        abort();
    const struct cr_pagemap *p = &once.list[0];
    walk(p);
    if (cr_pagemap_save(open_dir(), p->name, p->pages_id, p->runs, p->n_runs, NULL) != RC_OK ||
        cr_pagemaps_load(open_dir(), &twice, NULL) != RC_OK || twice.n != 1 ||
        twice.list[0].n_runs != p->n_runs || twice.list[0].pages_id != p->pages_id)
        abort();
    for (size_t i = 0; i < p->n_runs; i++)
        if (p->runs[i].address != twice.list[0].runs[i].address ||
            p->runs[i].pages != twice.list[0].runs[i].pages ||
            p->runs[i].at != twice.list[0].runs[i].at ||
            p->runs[i].flags != twice.list[0].runs[i].flags)
            abort();
    return 0;
}
