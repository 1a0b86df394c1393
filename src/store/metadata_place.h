/* The place that a container was in: its mounts and namespaces, as metadata.json has them
 * (contract, 5.3), so that a restore can tell what must be there. Threads: a struct belongs to one
 * thread. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <yyjson.h>

/* Texts belong to the struct; NULL is absent. */
struct metadata_mount {
    char *container_path, *host_path;
    char *oci_source, *oci_type; /* as the runtime was told */
    char **oci_options;          /* NULL-terminated, or NULL */
    char *volume_type;           /* as a pod's spec calls it, "unknown" */
    char *volume_name;
    char *fs_type;
    bool read_only;
};

struct metadata_namespace {
    char *type; /* "net" */
    uint64_t inode;
    bool external; /* another than that of the machine's first process */
};

struct metadata_place {
    struct metadata_mount *mounts;
    size_t n_mounts;
    struct metadata_namespace *namespaces;
    size_t n_namespaces;
    /* NULL-terminated, or NULL. */
    char **masked_paths, **readonly_paths, **bind_mount_dests;
};

/* Add the members to the document's object, in the contract's order. */
void metadata_place_write(const struct metadata_place *p, yyjson_mut_doc *doc, yyjson_mut_val *o);
/* What is not there or of another type is left empty: the reference implementation's documents are
 * read, too.
 * out     metadata_place_done(), also on failure
 * errors  RC_CORRUPT (more members than anybody has) */
enum rc metadata_place_read(yyjson_val *o, struct metadata_place *out, struct err *err);
void metadata_place_done(struct metadata_place *p);

/* A list of texts with one more at its end; `text` is copied.  list: NULL-terminated, or NULL */
void metadata_list_add(char ***list, const char *text);
