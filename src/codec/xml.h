/* Reading XML from outside: the texts of its elements, one after the other, over expat.  Entities
 * other than the five of XML itself are refused, so that nothing grows; depth and lengths are
 * bounded.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stddef.h>

#define XML_DEPTH_MAX 16
#define XML_PATH_MAX 512 /* bytes, with the NUL */
#define XML_TEXT_MAX ((size_t)64 << 10)

/* Called at the end of every element.
 * path    its name and those around it without their name spaces: "/ListBucketResult/Contents/Key"
 * text    what stands in it, without that of its elements, NUL-terminated
 * An error ends the reading and is what it returns. */
typedef enum rc xml_visit(void *arg, const char *path, const char *text, struct err *err);

/* what    names the document in errors
 * errors  RC_CORRUPT (with the line; no XML, too deep, too long, entities), those of visit */
enum rc xml_read(const char *what, const char *data, size_t len, xml_visit *visit, void *arg,
                 struct err *err);
