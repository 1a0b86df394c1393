/* metadata.json: what a checkpoint is, where it was made, and what a restore must know.
 *
 * The document has the keys of the ChReK contract, in its order, and then one of our own, "chrek".
 * Keys of others are ignored on reading.  The format number counts changes that an older reader
 * would misunderstand; a document with a larger one is refused.
 *
 * Strings belong to the struct (metadata_done()); NULL means absent.
 * Threads: a struct belongs to one thread.
 */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "gpu/facts.h"
#include "store/metadata_place.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define METADATA_NAME "metadata.json"
/* 1: page images are files; 2: memory may be packed; 3: encrypted; 4: GPU state in the memory */
#define METADATA_FORMAT 4
#define METADATA_MAX ((size_t)8 << 20) /* bytes of a document that is read */
#define METADATA_LIST_MAX 65536        /* members of any list */

struct metadata_label {
    char *key, *value;
};

/* How a standard stream of the tree was connected, so that a restore can connect it anew. */
enum metadata_stream {
    METADATA_STREAM_NONE, /* closed, or something that CRIU restores by itself */
    METADATA_STREAM_PIPE, /* `stream_key` is CRIU's name of the pipe */
    METADATA_STREAM_TTY,  /* the slave of a pty whose master is outside the tree */
};

struct metadata_timing {
    char *step;
    uint64_t ns;
};

struct metadata {
    /* contract */
    char *checkpoint_id;
    char *created_at;
    char *source_node;
    char *source_pod_ip;
    char *container_id;
    char *pod_name, *pod_namespace;
    char *image;
    int64_t pid; /* on the host */
    char *rootfs_diff_path, *upper_dir;
    bool has_rootfs_diff, has_deleted_files;
    struct metadata_place place; /* of a container */
    bool tcp_established, tcp_close, shell_job, file_locks, leave_running, link_remap, ext_masters;

    /* chrek */
    bool ours; /* the "chrek" object is there; otherwise everything below is zero */
    uint64_t format;
    char *chrek_version, *criu_version;
    char *kernel, *arch;
    char *cpu_model;
    char *cpu_flags; /* as in /proc/cpuinfo, separated by blanks */
    char *instance;  /* of a signed or encrypted checkpoint: that of its manifest */
    char *key;       /* name of the data key that it is encrypted with, NULL = it is not */
    char *name;      /* of the box */
    char *parent_id; /* the checkpoint that the tree had been restored from */
    uint64_t generation;
    int64_t root_pid; /* root of the tree inside its PID namespace */
    char **command;   /* NULL-terminated, or NULL */
    char *cwd;
    enum metadata_stream streams[3];
    char *stream_key[3];
    char *notify;
    bool private_net;
    bool container; /* saved with its PID, mount, UTS and IPC namespace; mounts are external */
    bool has_shm;   /* tmpfs-dev-shm.tar holds /dev/shm */
    bool host_shm;  /* the tree used the machine's own /dev/shm, which is not saved */
    struct metadata_label *labels;
    size_t n_labels;
    struct metadata_timing *timings;
    size_t n_timings;
    uint64_t freeze_ns;
    uint64_t
        sync_ns; /* waited for the disk, until this was written; in the steps, too; 0 = unknown */
    uint64_t pages_bytes, total_bytes; /* memory; files and, packed, what this checkpoint added */
    bool packed;                       /* the memory is in packs (store/memory.h) */
    uint64_t zero_bytes;               /* of memory: zero, not stored */
    uint64_t known_bytes;              /* of memory: the store had it already */
    uint64_t packed_bytes;             /* of new packs */
    struct gpu_facts *gpu;             /* of the machine, if GPU state is in the memory; or NULL */
    int64_t *gpu_pids;                 /* whose, inside the PID namespace */
    size_t n_gpu_pids;
};

/* Text of the document. */
void metadata_format(const struct metadata *m, struct buf *out);
/* The same without what tells of the program: command, directory, labels, names, streams.  What is
 * readable of an encrypted checkpoint. */
void metadata_format_bare(const struct metadata *m, struct buf *out);

/* Parse a document.
 * out     the caller's, metadata_done()
 * errors  RC_CORRUPT (no such document), RC_UNSUPPORTED (made by a newer chrek) */
enum rc metadata_parse(const char *text, size_t len, struct metadata *out, struct err *err);

/* Free what the struct holds and zero it. */
void metadata_done(struct metadata *m);
