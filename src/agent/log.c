#include "agent/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"
#include "codec/utf8.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static void add(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *text)
{
    CLEANUP(buf_done) struct buf valid = BUF_INIT;
    utf8_add(&valid, text, strlen(text));
    (void)yyjson_mut_obj_add(o, yyjson_mut_strcpy(doc, key),
                             yyjson_mut_strcpy(doc, buf_str(&valid)));
}

/* One write, so that lines of several threads do not mix. */
static void write_line(const char *level, const char *msg, va_list pairs)
{
    CLEANUP(json_mut_docp) yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *o = yyjson_mut_obj(doc);
    char now[CLOCK_RFC3339_LEN];
    size_t len = 0;
    yyjson_mut_doc_set_root(doc, o);
    clock_rfc3339(now);
    add(doc, o, "time", now);
    add(doc, o, "level", level);
    add(doc, o, "msg", msg);
    for (const char *key; (key = va_arg(pairs, const char *));) {
        const char *value = va_arg(pairs, const char *);
        if (value)
            add(doc, o, key, value);
    }
    CLEANUP(mem_freep) char *line = yyjson_mut_write(doc, YYJSON_WRITE_NEWLINE_AT_END, &len);
    if (line)
        (void)!write(STDERR_FILENO, line, len);
}

#define DEFINE(name, level)                                                                        \
    void name(const char *msg, ...)                                                                \
    {                                                                                              \
        va_list pairs;                                                                             \
        va_start(pairs, msg);                                                                      \
        write_line(level, msg, pairs);                                                             \
        va_end(pairs);                                                                             \
    }
DEFINE(log_info, "info")
DEFINE(log_warn, "warning")
DEFINE(log_error, "error")
