/* A checkpoint as an OCI image layout: one layer that holds the archive's members, a config of its
 * own (image stores are keyed by it), and on the manifest the annotations by which CRI-O,
 * containerd and Podman recognise a checkpoint.
 *
 * Podman's `runtime.name` is what makes Podman restore an image; versions with CVE-2026-94603 then
 * use the security settings of the checkpoint instead of the caller's.  So it is written on request
 * only.
 *
 * Threads: safe. */
#pragma once

#include "exchange/export.h"
#include "exchange/parts.h"

/* Into an empty directory.
 * errors  those of tarball_write(), RC_IO */
enum rc image_write(const struct parts *p, int dir, const struct export_options *o,
                    struct err *err);
