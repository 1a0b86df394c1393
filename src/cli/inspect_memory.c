#include "base/compiler.h"
#include "base/term.h"
#include "cli/inspect.h"

#include <inttypes.h>

static void size_line(struct buf *out, const char *name, uint64_t pages, const char *note)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    term_size(pages * MEMORY_PAGE, &text);
    buf_addf(out, "  %-18s %10s%s\n", name, buf_str(&text), note);
}

static uint64_t percent(uint64_t part, uint64_t whole)
{
    return whole ? (part * 100 + whole / 2) / whole : 0;
}

void inspect_memory_people(const struct memory *m, const struct workingset *w, struct buf *out)
{
    struct memory_totals t = memory_totals(m);
    CLEANUP(buf_done) struct buf bytes = BUF_INIT;
    term_size(t.bytes, &bytes);
    buf_adds(out, "\nMEMORY AS IT IS STORED\n");
    size_line(out, "different pages", t.different, "");
    size_line(out, "the same again", t.pages - t.zero - t.different, "");
    size_line(out, "zero", t.zero, "");
    if (t.changes)
        size_line(out, "changes", t.changes, "  of pages of earlier checkpoints, which are kept");
    buf_addf(out, "  %-18s %10s  %" PRIu64 " %% of %zu chunks in %zu packs\n", "compressed",
             buf_str(&bytes), percent(t.bytes, t.stored * MEMORY_PAGE), m->n_chunks, m->n_packs);
    if (t.stored > t.different)
        size_line(out, "others' pages", t.stored - t.different, "  in the same chunks");
    buf_addf(out, "  %-18s %10" PRIu64 "  in %zu packs: more pieces take more reads\n", "pieces",
             t.places, m->n_packs);
    if (!w)
        return;
    CLEANUP(buf_done) struct buf note = BUF_INIT;
    buf_addf(&note, "  %" PRIu64 " %% of memory, what a restored program touches first",
             percent(w->pages, t.pages));
    size_line(out, "working set", w->pages, buf_str(&note));
}

void inspect_memory_json(const struct memory *m, const struct workingset *w, yyjson_mut_doc *doc,
                         yyjson_mut_val *object)
{
    struct memory_totals t = memory_totals(m);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    (void)yyjson_mut_obj_add_val(doc, object, "stored", o);
    (void)yyjson_mut_obj_add_uint(doc, o, "pages", t.pages);
    (void)yyjson_mut_obj_add_uint(doc, o, "zero_pages", t.zero);
    (void)yyjson_mut_obj_add_uint(doc, o, "different_pages", t.different);
    (void)yyjson_mut_obj_add_uint(doc, o, "changed_pages", t.changes);
    (void)yyjson_mut_obj_add_uint(doc, o, "chunk_pages", t.stored);
    (void)yyjson_mut_obj_add_uint(doc, o, "chunks", m->n_chunks);
    (void)yyjson_mut_obj_add_uint(doc, o, "chunk_bytes", t.bytes);
    (void)yyjson_mut_obj_add_uint(doc, o, "chunk_reads", t.reads);
    (void)yyjson_mut_obj_add_uint(doc, o, "places", t.places);
    (void)yyjson_mut_obj_add_uint(doc, o, "packs", m->n_packs);
    if (w)
        (void)yyjson_mut_obj_add_uint(doc, o, "working_set_pages", w->pages);
}
