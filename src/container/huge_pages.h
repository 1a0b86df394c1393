/* Huge pages in the place of small ones, in another process.
 *
 * Memory that came in page by page lies in small pages, also where the program has asked for huge
 * ones (MADV_HUGEPAGE) or the kernel gives them to everybody; the kernel would join them in its own
 * time, some MB each second.  MADV_COLLAPSE (Linux >= 6.1) does it at once.  Memory never gets more
 * by that: only where every small page is there, and the process's alone, it is joined.
 *
 * Threads: safe.
 */
#pragma once

#include "base/err.h"
#include "container/proc_tree.h"

#include <stdbool.h>

#define HUGE_PAGES_SIZE ((uint64_t)2 << 20) /* x86-64, and arm64 with pages of 4 KiB */

/* Whether this kernel can. */
bool huge_pages_can(void);

/* Join what may be joined.
 * more    asked before each huge page; false: enough for now, which is no error
 * errors  RC_UNSUPPORTED (kernel), RC_NOT_FOUND (the process has ended), RC_DENIED (it takes
 *         CAP_SYS_NICE, and the rights of a debugger), RC_NO_SPACE (no huge page to be had) */
enum rc huge_pages_join(const struct proc_facts *process, bool (*more)(void *arg), void *arg,
                        struct err *err);
