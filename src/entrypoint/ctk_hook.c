#include "entrypoint/ctk_hook.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "codec/json.h"

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MARK "nvidia-ctk-hook"
#define BELOW "/run/" MARK

/* What may become a link: nothing but such a path directly below /run. */
static bool is_hook(const char *path)
{
    return strncmp(path, BELOW, sizeof(BELOW) - 1) == 0 && !strchr(path + sizeof("/run"), '/') &&
           strlen(path) < NAME_MAX;
}

static char *old_from_log(const char *log)
{
    for (const char *line = log; line && *line;) {
        size_t len = strcspn(line, "\n");
        const char *at = memmem(line, len, "@ ./", 4);
        if (at && memmem(line, len, MARK, sizeof(MARK) - 1)) {
            at += 3; /* the slash */
            return mem_asprintf("%.*s", (int)strcspn(at, " \t\n"), at);
        }
        line += len + (line[len] == '\n');
    }
    return NULL;
}

static char *old_from_metadata(const char *text, size_t len)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    if (!len || json_parse("metadata.json", text, len, &doc, NULL) != RC_OK)
        return NULL;
    yyjson_val *list = yyjson_obj_get(yyjson_doc_get_root(doc), "mounts"), *mount;
    size_t i, max;
    yyjson_arr_foreach(list, i, max, mount)
    {
        const char *path = json_str(mount, "container_path", "");
        if (strstr(path, MARK))
            return mem_strdup(path);
    }
    return NULL;
}

char *ctk_hook_old(const char *log, const char *metadata, size_t metadata_len)
{
    char *found = old_from_log(log);
    return found ? found : old_from_metadata(metadata, metadata_len);
}

char *ctk_hook_new(const char *mountinfo)
{
    for (const char *at = mountinfo; (at = strstr(at, " " BELOW)); at++) {
        const char *path = at + 1;
        CLEANUP(mem_freep) char *copy = mem_asprintf("%.*s", (int)strcspn(path, " \n"), path);
        if (is_hook(copy))
            return STEAL(copy);
    }
    return NULL;
}

enum rc ctk_hook_map(const char *root, const char *old_path, const char *new_path, char **out,
                     struct err *err)
{
    if (!is_hook(old_path))
        return err_set(err, RC_INVALID, "'%.200s' is no mount of the NVIDIA Container Toolkit",
                       old_path);
    CLEANUP(mem_freep) char *parent = mem_asprintf("%s/run", root);
    CLEANUP(mem_freep) char *link = mem_asprintf("%s%s", root, old_path);
    enum rc rc = fs_mkdirs(parent, 0755, err);
    if (rc)
        return rc;
    if (symlink(new_path, link) < 0 && errno != EEXIST)
        return err_sys(err, "link '%s'", link);
    *out = mem_asprintf("mnt[%s]:%s", old_path, new_path);
    return RC_OK;
}
