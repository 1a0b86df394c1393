/* A log may hold anything; what is said of it is printable and short. */
#include "criu/explain.h"

#include <ctype.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cr_explanation x;
    cr_explain((const char *)data, size, &x);
    for (const char *p = x.line; *p; p++)
        if (!isprint((unsigned char)*p))
            abort();
    if (!x.meaning != !x.remedy || x.rc == RC_OK)
        abort();
    return 0;
}
