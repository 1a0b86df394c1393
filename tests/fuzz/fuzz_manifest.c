/* What parses names plain files only, and formats back to what parses. */
#include "base/compiler.h"
#include "store/done.h"
#include "store/manifest.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(manifest_done) struct manifest m = {0};
    CLEANUP(manifest_done) struct manifest again = {0};
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    (void)!done_check((const char *)data, size, NULL);
    if (manifest_parse((const char *)data, size, &m, NULL) != RC_OK)
        return 0;
    for (size_t i = 0; i < m.n; i++)
        if (strchr(m.files[i].name, '/') || strcmp(m.files[i].name, "..") == 0)
            abort();
    manifest_format(&m, &text);
    if (manifest_parse(buf_str(&text), text.len, &again, NULL) != RC_OK || again.n != m.n)
        abort();
    return 0;
}
