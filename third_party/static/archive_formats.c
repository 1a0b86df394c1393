/* Archive formats that the static program can do without.
 *
 * libarchive's tar writer refers to a table of all its formats; linked statically they would bring
 * zlib, bzip2, lzma, nettle, libxml2 and ICU along.  Where these names are defined first, the
 * linker leaves the formats, and so those libraries, out.  Choosing one of them fails.
 */
#include <archive.h>
#include <errno.h>

#define LEAVE_OUT(format)                                                                          \
    int archive_write_set_format_##format(struct archive *a)                                       \
    {                                                                                              \
        archive_set_error(a, ENOSYS, #format ": not in this program");                             \
        return ARCHIVE_FATAL;                                                                      \
    }

LEAVE_OUT(7zip)
LEAVE_OUT(iso9660)
LEAVE_OUT(mtree)
LEAVE_OUT(mtree_classic)
LEAVE_OUT(xar)
LEAVE_OUT(zip)
