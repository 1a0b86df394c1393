/* Signatures and PEM keys: what parses formats back to what parses; nothing is signed by chance. */
#include "base/compiler.h"
#include "codec/signature.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(signature_trust_done) struct signature_trust t = {0};
    CLEANUP(signature_key_freep) struct signature_key *k = NULL;
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    struct signature s, again;
    (void)!signature_key_parse((const char *)data, size, &k, NULL);
    (void)!signature_trust_add(&t, (const char *)data, size, NULL);
    if (signature_parse((const char *)data, size, &s, NULL) != RC_OK)
        return 0;
    signature_format(&s, &text);
    if (signature_parse(buf_str(&text), text.len, &again, NULL) != RC_OK ||
        memcmp(&s, &again, sizeof(s)) != 0)
        abort();
    if (signature_check(&t, &s, "other bytes", 11, NULL) == RC_OK)
        abort();
    return 0;
}
