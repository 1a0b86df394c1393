/* CRIU's images, read for people: what processes a checkpoint holds, with their memory by kind,
 * open files, sockets, arguments and environment.
 *
 * Images are outside bytes: every length is checked, memory is bounded, nothing is executed or
 * followed.  Fields that are not known are skipped, so images of a newer CRIU can be read.
 *
 * Threads: what was loaded is constant; loading belongs to one thread.
 */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What memory is for.  Names are an interface (inspect --json). */
enum cr_memory {
    CR_MEMORY_HEAP,
    CR_MEMORY_STACK,
    CR_MEMORY_ANON,         /* private, from nowhere */
    CR_MEMORY_FILE_PRIVATE, /* programs, libraries, and what was written to their copies */
    CR_MEMORY_FILE_SHARED,
    CR_MEMORY_SHARED, /* anonymous, shared between processes */
    CR_MEMORY_MEMFD,
    CR_MEMORY_SYSV,
    CR_MEMORY_OTHER, /* vdso and the like */
    CR_MEMORY_COUNT_,
};

const char *cr_memory_name(enum cr_memory kind); /* "heap" */
/* By CRIU's status bits and the flags of a mapping. */
enum cr_memory cr_memory_kind(uint64_t status, uint64_t flags);

struct cr_memory_use {
    uint64_t mapped[CR_MEMORY_COUNT_]; /* bytes of address space */
    uint64_t saved[CR_MEMORY_COUNT_];  /* bytes in page images */
};

/* An open file; descriptors may share it. */
struct cr_file {
    uint32_t id;
    const char *kind; /* "file", "pipe", "tcp", ... static */
    char *text;       /* path, addresses; never NULL */
};

struct cr_files {
    struct cr_file *list; /* sorted by id */
    size_t n;
};

struct cr_descriptor {
    uint32_t fd;
    const struct cr_file *file; /* NULL = not in the images */
};

struct cr_process {
    uint32_t pid, ppid, pgid, sid;
    uint32_t threads;
    uint32_t uid, gid;
    uint64_t capabilities;           /* effective */
    uint32_t seccomp;                /* 0 none, 1 strict, 2 filter */
    char *comm, *exe, *cwd, *root;   /* "" when unknown */
    char **arguments, **environment; /* NULL-terminated */
    struct cr_memory_use memory;
    struct cr_descriptor *descriptors;
    size_t n_descriptors;
};

struct cr_images {
    struct cr_process *processes; /* in the order of the tree: a parent before its children */
    size_t n;
    struct cr_files files;
    uint64_t shared_saved; /* bytes of shared memory, counted once */
};

/* Where pages come from when they are in no pages-<id>.img. */
struct cr_page_source {
    /* Page `n` of page image `pages_id` into `out`, 4096 bytes; `lazy`: the n-th of those that its
     * page map mentions but that are not in it.  What fails is not shown. */
    enum rc (*page)(void *arg, uint32_t pages_id, bool lazy, uint64_t n, void *out,
                    struct err *err);
    void *arg;
};

/* Read the images of a directory.
 * source  NULL: pages are in the directory's files
 * out     the caller's, cr_images_freep()
 * errors  RC_NOT_FOUND (no images there), RC_CORRUPT (which), RC_TOO_BIG, RC_IO */
enum rc cr_images_load(int dirfd, const struct cr_page_source *source, struct cr_images **out,
                       struct err *err);
void cr_images_freep(struct cr_images **images);
