/* Key files and wrapped keys: what parses formats back to the same bytes; nothing opens by chance.
 */
#include "base/compiler.h"
#include "codec/keyfile.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(wrapped_key_done) struct wrapped_key w = {.kind = KEYFILE_BY_FILE};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(buf_done) struct buf key_text = BUF_INIT;
    uint8_t key[CIPHER_KEY] = {0}, again[CIPHER_KEY];
    if (keyfile_parse(data, size, key, NULL) == RC_OK) {
        keyfile_format(key, &key_text);
        if (keyfile_parse(key_text.data, key_text.len, again, NULL) != RC_OK ||
            memcmp(key, again, sizeof(key)) != 0)
            abort();
    }
    if (wrapped_key_parse(data, size, &w, NULL) != RC_OK)
        return 0;
    wrapped_key_format(&w, &text);
    if (text.len != size || memcmp(text.data, data, size) != 0)
        abort();
    if (wrapped_key_open(&w, key, again, NULL) == RC_OK)
        abort();
    return 0;
}
