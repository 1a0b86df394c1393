#include "base/rand.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/types.h>

void rand_bytes(void *out, size_t len)
{
    unsigned char *p = out;
    while (len) {
        ssize_t n = getrandom(p, len < 256 ? len : 256, 0);
        if (n < 0 && errno == EINTR)
            continue; /* by a signal, while the kernel of a young machine still waits for noise */
        if (n <= 0)
            abort();
        p += n;
        len -= (size_t)n;
    }
}

void rand_hex(char *out, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    rand_bytes(out, len);
    for (size_t i = 0; i < len; i++)
        out[i] = digits[(unsigned char)out[i] & 15];
    out[len] = '\0';
}
