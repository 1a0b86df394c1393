/* Inside the reader of images: one image file, and the table of open files.  Threads: none shared.
 */
#pragma once

#include "base/buf.h"
#include "codec/wire.h"
#include "criu/images.h"

#define IMAGES_PROCESSES_MAX 65536
#define IMAGES_AREAS_MAX (1U << 20) /* mappings of one process, descriptors of one table */

struct image {
    char name[64];
    struct buf data;
    size_t at;
};

/* Open an image file.  errors RC_NOT_FOUND, RC_CORRUPT, RC_TOO_BIG, RC_IO */
enum rc image_open(int dirfd, struct image *i, struct err *err, const char *name, ...)
    PRINTF_LIKE(4, 5);
/* The next message; *more is false at the end.  errors RC_CORRUPT */
enum rc image_next(struct image *i, struct wire *out, bool *more, struct err *err);
void image_done(struct image *i); /* for CLEANUP() */
enum rc image_broken(const struct image *i, struct err *err);

/* A string of a message, NUL bytes as `@`, cut to IMAGE_TEXT_MAX bytes; the caller's. */
#define IMAGE_TEXT_MAX 8192
char *image_text(const struct wire_field *f);

/* ---- open files ---- */

enum rc image_files_load(int dirfd, struct cr_files *out, struct err *err);
const struct cr_file *image_files_find(const struct cr_files *files, uint32_t id);
void image_files_done(struct cr_files *files); /* for CLEANUP() */

/* ---- memory ---- */

/* Fill memory, exe, arguments and environment of a process whose pid is set. */
enum rc image_memory_load(int dirfd, const struct cr_page_source *source,
                          const struct cr_files *files, struct cr_process *p, struct err *err);
