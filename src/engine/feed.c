#include "engine/feed.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "base/sys.h"
#include "container/box.h"
#include "container/huge_pages.h"
#include "container/proc_tree.h"
#include "engine/children.h"
#include "pager/uffd.h"

#include <fcntl.h>
#include <unistd.h>

static const struct digest *memory_digest(const struct store_entry *e)
{
    const struct manifest *m = store_entry_manifest(e);
    const struct manifest_file *f = m ? manifest_find(m, MEMORY_NAME) : NULL;
    return f ? &f->digest : NULL;
}

enum engine_mode feed_mode(const struct engine *e, const struct engine_restore_request *req,
                           const struct page_reader *pages, struct workingset *set)
{
    struct err err = ERR_INIT;
    enum engine_mode mode = req->mode;
    enum rc rc = RC_OK;
    bool gpu = store_entry_metadata(req->entry)->gpu != NULL;
    bool container = store_entry_metadata(req->entry)->container;
    bool may_run_early = pages && !gpu && !container;
    bool has_record = may_run_early && mode != ENGINE_FULL &&
                      store_entry_workingset(req->entry, set, NULL) == RC_OK;
    if (mode == ENGINE_DEFAULT)
        mode = has_record ? ENGINE_WORKINGSET : ENGINE_FULL;
    if (mode == ENGINE_FULL || (mode == ENGINE_CRIU && !pages))
        return mode;
    if (mode == ENGINE_CRIU)
        rc = err_set(&err, RC_UNSUPPORTED, "CRIU cannot read packed memory");
    else if (!pages)
        rc = err_set(&err, RC_UNSUPPORTED, "its memory is stored in plain format");
    else if (container)
        rc = err_set(&err, RC_UNSUPPORTED, "it is a container with a PID namespace of its own");
    else if (gpu)
        rc = err_set(&err, RC_UNSUPPORTED, "the GPU's driver reads all of its memory at once");
    else
        rc = uffd_check(&err);
    if (!rc)
        return mode;
    CLEANUP(mem_freep)
    char *text = mem_asprintf("restoring in full, not %s: %s", mode_name(mode), err.msg);
    if (e->warn)
        e->warn(e->arg, text);
    return ENGINE_FULL;
}

/* ---- ending the processes ---- */

struct victims {
    struct box *box; /* NULL: children of the starter */
    uint64_t init_start;
    struct children children;
};

static void victims_done(struct victims *v)
{
    children_done(&v->children);
}

static void kill_box(const struct victims *v)
{
    struct proc_facts f;
    /* Our parent may have reaped the init, and its number be somebody else's. */
    if (proc_facts_read(box_init_pid(v->box), &f, NULL) == RC_OK && f.start == v->init_start)
        box_kill(v->box);
}

static void end_processes(void *arg)
{
    const struct victims *v = arg;
    if (v->box)
        kill_box(v);
    else
        children_kill(&v->children, 0);
}

/* ---- huge pages ---- */

/* Of who cannot be helped others are not the worse. */
static void join_pages(void *arg, bool (*more)(void *more_arg), void *more_arg)
{
    const struct victims *v = arg;
    CLEANUP(mem_freep) struct proc_facts *list = NULL;
    size_t n = 0;
    pid_t root = v->box ? box_init_pid(v->box) : v->children.parent;
    uint64_t since = v->box ? v->init_start : v->children.since;
    if (proc_tree(root, &list, &n, NULL) != RC_OK || (v->box && list[0].start != since))
        return;
    for (size_t i = 0; i < n && more(more_arg); i++)
        if (list[i].start >= since && list[i].pid != getpid() && list[i].pid != getppid())
            (void)!huge_pages_join(&list[i], more, more_arg, NULL);
}

/* ---- starting ---- */

enum rc feed_start(const struct engine_restore_request *req, enum engine_mode mode,
                   const struct page_reader *pages, const struct view *v, int work,
                   const struct workingset *set, struct pager **out, struct err *err)
{
    CLEANUP(workingset_place_done) struct workingset_place place = WORKINGSET_NOWHERE;
    CLEANUP(victims_done) struct victims victims = {.box = req->box, .children = CHILDREN_INIT};
    struct proc_facts f = {.start = 0};
    bool recorded = page_reader_memory(pages)->n_packs > 0 &&
                    store_entry_record(req->entry, &place, NULL) == RC_OK;
    enum rc rc = req->box ? proc_facts_read(box_init_pid(req->box), &f, err)
                          : children_note(&victims.children, getpid(), err);
    if (rc)
        return rc;
    victims.init_start = f.start;
    struct pager_options o = {.work = work,
                              .pages = pages,
                              .gaps = v->gaps,
                              .n_gaps = v->n_gaps,
                              .record = recorded ? &place : NULL,
                              .set = recorded && set->n_chunks > 0 ? set : NULL,
                              .memory = memory_digest(req->entry),
                              .use_record = mode == ENGINE_WORKINGSET,
                              .record_ns = req->record_ns,
                              .kill = end_processes,
                              .tidy = join_pages,
                              .arg = &victims};
    return pager_start(&o, out, err);
}
