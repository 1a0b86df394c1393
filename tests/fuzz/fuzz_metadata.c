/* What parses must be written and read back the same. */
#include "base/compiler.h"
#include "store/metadata.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(metadata_done) struct metadata m = {0};
    CLEANUP(metadata_done) struct metadata again = {0};
    if (metadata_parse((const char *)data, size, &m, NULL) != RC_OK || !m.ours)
        return 0;
    CLEANUP(buf_done) struct buf one = BUF_INIT;
    CLEANUP(buf_done) struct buf two = BUF_INIT;
    metadata_format(&m, &one);
    if (metadata_parse(buf_str(&one), one.len, &again, NULL) != RC_OK)
        abort();
    metadata_format(&again, &two);
    if (strcmp(buf_str(&one), buf_str(&two)) != 0)
        abort();
    return 0;
}
