#include "cli/text.h"

#include "base/compiler.h"

#include <string.h>

void text_plain(struct buf *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        buf_add(out, c < ' ' || c == 0x7f ? "?" : text, 1);
    }
}

void text_words(struct buf *out, char *const *words, size_t max)
{
    CLEANUP(buf_done) struct buf line = BUF_INIT;
    for (size_t i = 0; words && words[i] && line.len <= max; i++) {
        if (i)
            buf_adds(&line, " ");
        text_plain(&line, words[i]);
    }
    if (line.len <= max)
        return buf_adds(out, buf_str(&line));
    size_t cut = max > 3 ? max - 3 : 0;
    while (cut && ((unsigned char)line.data[cut] & 0xc0) == 0x80)
        cut--; /* not inside a character */
    buf_add(out, line.data, cut);
    buf_adds(out, "...");
}

void text_json(yyjson_mut_doc *doc, yyjson_mut_val *object, const char *key, const char *text)
{
    if (text)
        (void)yyjson_mut_obj_add_strcpy(doc, object, key, text);
    else
        (void)yyjson_mut_obj_add_null(doc, object, key);
}

void text_json_list(yyjson_mut_doc *doc, yyjson_mut_val *object, const char *key,
                    char *const *words)
{
    yyjson_mut_val *list = yyjson_mut_arr(doc);
    for (; words && *words; words++)
        (void)yyjson_mut_arr_add_strcpy(doc, list, *words);
    (void)yyjson_mut_obj_add_val(doc, object, key, list);
}
