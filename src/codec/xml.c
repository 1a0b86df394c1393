#include "codec/xml.h"

#include "base/buf.h"
#include "base/compiler.h"

#include <expat.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    XML_Parser parser;
    const char *what;
    xml_visit *visit;
    void *arg;
    char path[XML_PATH_MAX];
    size_t path_len;
    unsigned depth;
    struct buf text[XML_DEPTH_MAX]; /* of the elements that are open */
    enum rc rc;
    struct err *err;
};

static void stop(struct reader *r, const char *why)
{
    if (!r->rc)
        r->rc = err_set(r->err, RC_CORRUPT, "%s: line %lu: %s", r->what,
                        (unsigned long)XML_GetCurrentLineNumber(r->parser), why);
    (void)XML_StopParser(r->parser, XML_FALSE);
}

static void on_begin(void *arg, const char *name, const char **attributes)
{
    struct reader *r = arg;
    const char *colon = strrchr(name, ':');
    const char *local = colon ? colon + 1 : name;
    size_t n = strlen(local);
    (void)attributes;
    if (r->rc)
        return;
    if (r->depth == XML_DEPTH_MAX || r->path_len + n + 2 > sizeof(r->path)) {
        stop(r, "elements are nested too deeply");
        return;
    }
    r->path[r->path_len] = '/';
    memcpy(r->path + r->path_len + 1, local, n + 1);
    r->path_len += n + 1;
    r->text[r->depth].max = XML_TEXT_MAX;
    buf_cut(&r->text[r->depth++], 0);
}

static void on_text(void *arg, const char *text, int len)
{
    struct reader *r = arg;
    if (r->rc || r->depth == 0)
        return;
    struct buf *b = &r->text[r->depth - 1];
    buf_add(b, text, (size_t)len);
    if (b->overflowed)
        stop(r, "an element is too long");
}

static void on_end(void *arg, const char *name)
{
    struct reader *r = arg;
    (void)name;
    if (r->rc)
        return;
    r->rc = r->visit(r->arg, r->path, buf_str(&r->text[--r->depth]), r->err);
    if (r->rc)
        (void)XML_StopParser(r->parser, XML_FALSE);
    const char *slash = strrchr(r->path, '/');
    r->path_len = (size_t)(slash - r->path);
    r->path[r->path_len] = '\0';
}

static void on_entity(void *arg, const char *name, int is_parameter, const char *value, int len,
                      const char *base, const char *system, const char *public,
                      const char *notation)
{
    (void)name, (void)is_parameter, (void)value, (void)len, (void)base, (void)system;
    (void)public, (void)notation;
    stop(arg, "it declares entities");
}

enum rc xml_read(const char *what, const char *data, size_t len, xml_visit *visit, void *arg,
                 struct err *err)
{
    struct reader r = {.what = what, .visit = visit, .arg = arg, .err = err};
    r.parser = len <= INT_MAX ? XML_ParserCreate(NULL) : NULL;
    if (!r.parser)
        return err_set(err, RC_CORRUPT, "%s: too long", what);
    XML_SetUserData(r.parser, &r);
    XML_SetElementHandler(r.parser, on_begin, on_end);
    XML_SetCharacterDataHandler(r.parser, on_text);
    XML_SetEntityDeclHandler(r.parser, on_entity);
    if (XML_Parse(r.parser, len ? data : "", (int)len, 1) == XML_STATUS_ERROR && !r.rc)
        stop(&r, XML_ErrorString(XML_GetErrorCode(r.parser)));
    XML_ParserFree(r.parser);
    for (size_t i = 0; i < ARRAY_LEN(r.text); i++)
        buf_done(&r.text[i]);
    return r.rc;
}
