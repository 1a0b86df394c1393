#include "rootfs/whiteout.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "rootfs/tmpfs.h"

#include <archive_entry.h>
#include <string.h>

static const char *name_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

bool whiteout_is_opaque_mark(const char *path)
{
    return strcmp(name_of(path), WHITEOUT_OPAQUE) == 0;
}

char *whiteout_of(const char *path, struct archive_entry *e)
{
    const char *name = name_of(path);
    if (whiteout_is_opaque_mark(path) || archive_entry_hardlink(e))
        return NULL;
    if (archive_entry_filetype(e) == AE_IFCHR && archive_entry_rdev(e) == 0)
        return mem_strdup(path);
    if (strncmp(name, ".wh.", 4) == 0 && name[4])
        return mem_asprintf("%.*s%s", (int)(name - path), path, name + 4);
    return NULL;
}

void whiteout_make(struct archive_entry *e, const char *deleted)
{
    const char *name = name_of(deleted);
    CLEANUP(mem_freep)
    char *path = mem_asprintf("./%.*s.wh.%s", (int)(name - deleted), deleted, name);
    archive_entry_set_pathname(e, path);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, 0600);
    archive_entry_set_size(e, 0);
    archive_entry_set_rdev(e, 0);
    archive_entry_set_nlink(e, 1);
    archive_entry_xattr_clear(e);
}

void whiteout_make_opaque(struct archive_entry *e)
{
    archive_entry_xattr_add_entry(e, "trusted.overlay.opaque", "y", 1);
}

static bool is_overlays(const char *attribute)
{
    return strncmp(attribute, "trusted.overlay.", 16) == 0 ||
           strncmp(attribute, "user.overlay.", 13) == 0;
}

bool whiteout_is_opaque(struct archive_entry *e)
{
    const char *name;
    const void *value;
    size_t size;
    bool opaque = false;
    (void)archive_entry_xattr_reset(e);
    while (archive_entry_xattr_next(e, &name, &value, &size) == 0)
        if (is_overlays(name) && strcmp(strrchr(name, '.'), ".opaque") == 0)
            opaque = opaque || (size == 1 && *(const char *)value == 'y');
    return opaque && archive_entry_filetype(e) == AE_IFDIR;
}

void whiteout_drop_attributes(struct archive_entry *e)
{
    CLEANUP(tmpfs_entry_freep) struct archive_entry *copy = archive_entry_clone(e);
    archive_entry_xattr_clear(e);
    (void)archive_entry_xattr_reset(copy);
    const char *name;
    const void *value;
    size_t size;
    while (archive_entry_xattr_next(copy, &name, &value, &size) == 0)
        if (!is_overlays(name))
            archive_entry_xattr_add_entry(e, name, value, size);
}
