/* Numbers, names and digests from outside. */
#include "base/mem.h"
#include "base/num.h"
#include "codec/digest.h"
#include "codec/name.h"
#include "engine/ready.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(mem_freep)
    char *text = mem_asprintf("%.*s", (int)(size < 4096 ? size : 4096), (const char *)data);
    CLEANUP(ready_freep) struct ready *ready = NULL;
    uint64_t n = 0;
    struct digest d;
    (void)!num_parse_duration(text, &n, NULL);
    (void)!num_parse_size(text, &n, NULL);
    if (num_parse_u64(text, 5, 50, &n, NULL) == RC_OK && (n < 5 || n > 50))
        abort();
    if (name_is_id(text) && (strchr(text, '/') || strstr(text, "..")))
        abort();
    (void)!ready_parse(text, &ready, NULL);
    if (digest_parse(text, strlen(text), &d, NULL) != RC_OK)
        return 0;
    char back[DIGEST_TEXT_LEN + 1];
    digest_format(&d, back);
    if (strcmp(back, text) != 0)
        abort();
    return 0;
}
