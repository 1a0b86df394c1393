/* What a checkpoint of ours consists of for others: the files of an archive, with whole page images
 * whatever way the memory is stored here.  Every byte is verified before or while it is given.
 *
 * Threads: parts belong to one thread. */
#pragma once

#include "criu/pagemap.h"
#include "exchange/origin.h"
#include "store/store.h"

#include <stdbool.h>

struct part {
    char *path; /* in the archive */
    unsigned mode;
    int64_t mtime;
    uint64_t size;

    /* Where its bytes are: in `bytes`, in the packs, or in a file. */
    bool is_text;
    struct buf bytes;
    const struct cr_pagemap *map;
    int dir;
    char *name;
};

struct parts {
    struct part *list;
    size_t n;
    struct origin origin; /* engine NULL: it was made by us */
    struct metadata meta; /* as of a checkpoint that is neither packed nor encrypted */
    const struct page_reader *pages;
    struct cr_pagemaps maps;
    int maps_dir; /* page maps for whole page images; -1 = those of the checkpoint are */
};

enum parts_layout {
    PARTS_ARCHIVE, /* as the kubelet's and Podman's archives, and metadata.json */
    PARTS_FLAT,    /* the files of a checkpoint directory, without its documents */
};

/* One that was imported has the members that it had, in any layout.
 * out     the caller's, parts_done(); `e` must outlive it
 * errors  those of store_entry_reveal() and store_entry_pages() */
enum rc parts_make(struct store_entry *e, enum parts_layout layout, struct parts *out,
                   struct err *err);
void parts_done(struct parts *p);

/* Take the next bytes of a part, in order.  An error ends the reading and is what it returns. */
typedef enum rc part_sink(void *arg, const void *data, size_t len, struct err *err);
enum rc part_read(const struct parts *all, const struct part *p, part_sink *sink, void *arg,
                  struct err *err);
