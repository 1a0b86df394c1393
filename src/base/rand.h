/* Random bytes from the kernel.  Threads: safe. */
#pragma once

#include <stddef.h>

/* Fill with fresh bytes; never fails (the process ends if the kernel has no generator). */
void rand_bytes(void *out, size_t len);

/* `len` characters of [0-9a-f] and a NUL. */
void rand_hex(char *out, size_t len);
