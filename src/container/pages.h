/* Which pages of a process's anonymous memory there are, or have been written: ioctl(PAGEMAP_SCAN),
 * Linux >= 6.7. Threads: safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define PAGES_SIZE ((uint64_t)4096)

/* Pages that follow each other. */
struct pages_run {
    uint64_t address, pages;
    bool unwritten; /* since pages_protect(), in a mapping that has been registered all the time */
};

/* Told of each run, by ascending address.  An error ends the scan and is what it returns. */
typedef enum rc pages_visit(void *arg, const struct pages_run *run, struct err *err);

/* Whether this kernel can scan. */
bool pages_can_scan(void);

/* /proc/<pid>/pagemap, for the scans below.  out_fd: the caller's.
 * errors  RC_NOT_FOUND (no such process), RC_DENIED, RC_IO */
enum rc pages_open(pid_t pid, int *out_fd, struct err *err);

/* Pages of an address range that are in memory or swapped out.  In a mapping of a file also those
 * that still are the file's.  Zero pages that were only read may be among them.
 * errors  RC_UNSUPPORTED (kernel), RC_IO, or what visit returned */
enum rc pages_scan(int pagemap, uint64_t start, uint64_t end, pages_visit *visit, void *arg,
                   struct err *err);

/* The same, and protect these pages: until one is written it counts as unwritten.  The kernel
 * removes the protection with the first write, and with everything by which other content can come
 * to the place: there is no mark that could stay behind.  What `unwritten` says is how it was
 * before. start, end  inside mappings that are registered (container/written.h) errors RC_DENIED (a
 * mapping there is not), and as above */
enum rc pages_protect(int pagemap, uint64_t start, uint64_t end, pages_visit *visit, void *arg,
                      struct err *err);

/* Whether a mapping is registered, as far as it has pages at all. */
bool pages_registered(int pagemap, uint64_t start, uint64_t end);
