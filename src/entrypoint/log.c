#include "entrypoint/log.h"

#include "base/buf.h"
#include "base/clock.h"
#include "base/compiler.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

static void add_quoted(struct buf *b, const char *text)
{
    buf_adds(b, "\"");
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            buf_addf(b, "\\%c", c);
        else if (c == '\n')
            buf_adds(b, "\\n");
        else if (c < 0x20 || c == 0x7f)
            buf_addf(b, "\\x%02x", c);
        else
            buf_add(b, text, 1);
    }
    buf_adds(b, "\"");
}

static void add_value(struct buf *b, const char *text)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "-._/@^+:";
    if (*text && strspn(text, plain) == strlen(text))
        buf_adds(b, text);
    else
        add_quoted(b, text);
}

static void write_line(const char *level, const char *msg, va_list pairs)
{
    CLEANUP(buf_done) struct buf line = BUF_INIT;
    char now[CLOCK_LOCAL_LEN];
    clock_local(now);
    buf_addf(&line, "time=\"%s\" level=%s msg=", now, level);
    add_quoted(&line, msg);
    for (const char *key; (key = va_arg(pairs, const char *));) {
        const char *value = va_arg(pairs, const char *);
        buf_addf(&line, " %s=", key);
        add_value(&line, value ? value : "");
    }
    buf_adds(&line, "\n");
    (void)!write(STDOUT_FILENO, buf_str(&line), line.len);
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
