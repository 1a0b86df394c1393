#include "store/metadata_place.h"

#include "base/compiler.h"
#include "base/mem.h"
#include "codec/json.h"

#include <stdlib.h>

#define MEMBERS_MAX 65536

/* ---- writing ---- */

static void add(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    (void)yyjson_mut_obj_add_str(doc, o, key, value ? value : "");
}

static void add_some(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, const char *value)
{
    if (value && *value)
        add(doc, o, key, value);
}

static void add_list(yyjson_mut_doc *doc, yyjson_mut_val *o, const char *key, char *const *list)
{
    if (!list || !*list)
        return;
    yyjson_mut_val *v = yyjson_mut_obj_add_arr(doc, o, key);
    for (; *list; list++)
        (void)yyjson_mut_arr_add_str(doc, v, *list);
}

static void write_mount(const struct metadata_mount *m, yyjson_mut_doc *doc, yyjson_mut_val *list)
{
    yyjson_mut_val *o = yyjson_mut_arr_add_obj(doc, list);
    add(doc, o, "container_path", m->container_path);
    add(doc, o, "host_path", m->host_path);
    add_some(doc, o, "oci_source", m->oci_source);
    add_some(doc, o, "oci_type", m->oci_type);
    add_list(doc, o, "oci_options", m->oci_options);
    add(doc, o, "volume_type", m->volume_type);
    add(doc, o, "volume_name", m->volume_name);
    add(doc, o, "fs_type", m->fs_type);
    (void)yyjson_mut_obj_add_bool(doc, o, "read_only", m->read_only);
}

void metadata_place_write(const struct metadata_place *p, yyjson_mut_doc *doc, yyjson_mut_val *o)
{
    yyjson_mut_val *mounts = yyjson_mut_obj_add_arr(doc, o, "mounts");
    for (size_t i = 0; i < p->n_mounts; i++)
        write_mount(&p->mounts[i], doc, mounts);
    add_list(doc, o, "masked_paths", p->masked_paths);
    add_list(doc, o, "readonly_paths", p->readonly_paths);
    add_list(doc, o, "bind_mount_dests", p->bind_mount_dests);
    yyjson_mut_val *namespaces = yyjson_mut_obj_add_arr(doc, o, "namespaces");
    for (size_t i = 0; i < p->n_namespaces; i++) {
        yyjson_mut_val *n = yyjson_mut_arr_add_obj(doc, namespaces);
        add(doc, n, "type", p->namespaces[i].type);
        (void)yyjson_mut_obj_add_uint(doc, n, "inode", p->namespaces[i].inode);
        (void)yyjson_mut_obj_add_bool(doc, n, "is_external", p->namespaces[i].external);
    }
}

/* ---- reading ---- */

void metadata_list_add(char ***list, const char *text)
{
    size_t n = 0;
    while (*list && (*list)[n])
        n++;
    *list = mem_realloc(*list, (n + 2) * sizeof(char *));
    (*list)[n] = mem_strdup(text);
    (*list)[n + 1] = NULL;
}

static char **read_list(yyjson_val *from)
{
    size_t i, max, n = 0;
    yyjson_val *v;
    if (yyjson_arr_size(from) == 0)
        return NULL;
    char **list = mem_zalloc((yyjson_arr_size(from) + 1) * sizeof(*list));
    yyjson_arr_foreach(from, i, max, v)
    {
        if (yyjson_is_str(v))
            list[n++] = mem_strdup(yyjson_get_str(v));
    }
    return list;
}

static void read_mount(yyjson_val *o, struct metadata_mount *m)
{
    m->container_path = mem_strdup(json_str(o, "container_path", NULL));
    m->host_path = mem_strdup(json_str(o, "host_path", NULL));
    m->oci_source = mem_strdup(json_str(o, "oci_source", NULL));
    m->oci_type = mem_strdup(json_str(o, "oci_type", NULL));
    m->oci_options = read_list(yyjson_obj_get(o, "oci_options"));
    m->volume_type = mem_strdup(json_str(o, "volume_type", NULL));
    m->volume_name = mem_strdup(json_str(o, "volume_name", NULL));
    m->fs_type = mem_strdup(json_str(o, "fs_type", NULL));
    m->read_only = json_bool(o, "read_only", false);
}

enum rc metadata_place_read(yyjson_val *o, struct metadata_place *out, struct err *err)
{
    static const char *const keys[] = {"mounts", "namespaces", "masked_paths", "readonly_paths",
                                       "bind_mount_dests"};
    size_t i, max;
    yyjson_val *v;
    for (i = 0; i < ARRAY_LEN(keys); i++)
        if (yyjson_arr_size(yyjson_obj_get(o, keys[i])) > MEMBERS_MAX)
            return err_set(err, RC_CORRUPT, "'%s' has more than %d members", keys[i], MEMBERS_MAX);
    yyjson_val *mounts = yyjson_obj_get(o, "mounts"), *spaces = yyjson_obj_get(o, "namespaces");
    out->mounts = mem_zalloc((yyjson_arr_size(mounts) + 1) * sizeof(*out->mounts));
    out->namespaces = mem_zalloc((yyjson_arr_size(spaces) + 1) * sizeof(*out->namespaces));
    yyjson_arr_foreach(mounts, i, max, v)
    {
        read_mount(v, &out->mounts[out->n_mounts++]);
    }
    yyjson_arr_foreach(spaces, i, max, v)
    {
        out->namespaces[out->n_namespaces++] = (struct metadata_namespace){
            mem_strdup(json_str(v, "type", NULL)), json_u64(v, "inode", 0),
            json_bool(v, "is_external", false)};
    }
    out->masked_paths = read_list(yyjson_obj_get(o, "masked_paths"));
    out->readonly_paths = read_list(yyjson_obj_get(o, "readonly_paths"));
    out->bind_mount_dests = read_list(yyjson_obj_get(o, "bind_mount_dests"));
    return RC_OK;
}

static void free_list(char **list)
{
    for (char **p = list; p && *p; p++)
        free(*p);
    free(list);
}

void metadata_place_done(struct metadata_place *p)
{
    for (size_t i = 0; i < p->n_mounts; i++) {
        struct metadata_mount *m = &p->mounts[i];
        free(m->container_path);
        free(m->host_path);
        free(m->oci_source);
        free(m->oci_type);
        free_list(m->oci_options);
        free(m->volume_type);
        free(m->volume_name);
        free(m->fs_type);
    }
    free(p->mounts);
    for (size_t i = 0; i < p->n_namespaces; i++)
        free(p->namespaces[i].type);
    free(p->namespaces);
    free_list(p->masked_paths);
    free_list(p->readonly_paths);
    free_list(p->bind_mount_dests);
    *p = (struct metadata_place){.mounts = NULL};
}
