/* The calls of userfaultfd(2), with what their errors mean here.  Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* Whether we may have a userfaultfd with the events that a pager needs.
 * errors  RC_UNSUPPORTED (the kernel has none), RC_DENIED */
enum rc uffd_check(struct err *err);

enum uffd_result {
    UFFD_DONE,
    UFFD_THERE, /* a page is there already */
    UFFD_AGAIN, /* an event is to be read first */
    UFFD_NONE,  /* no such mapping: not yet, no longer, or the range crosses its end */
    UFFD_GONE,  /* the process has ended or become another program */
    UFFD_ERROR, /* errno */
};

/* Give pages to a process and wake who waits for them.
 * out_len  bytes that were given before the result */
enum uffd_result uffd_copy(int fd, uint64_t address, const void *data, uint64_t len,
                           uint64_t *out_len);
/* Give zero pages. */
enum uffd_result uffd_zero(int fd, uint64_t address, uint64_t len);
/* Let who waits look again. */
void uffd_wake(int fd, uint64_t address, uint64_t len);
