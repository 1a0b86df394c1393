/* A manifest from a registry: what parses is written and parses to the same; and tags: the key of a
 * tag has that tag. */
#include "backend/oci_manifest.h"
#include "base/compiler.h"
#include "base/mem.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_tag(const char *tag)
{
    char key[BACKEND_KEY_MAX + 1], again[OCI_TAG_MAX + 1];
    oci_key(tag, key);
    if (!*key)
        return;
    oci_tag(key, again);
    if (strcmp(again, tag) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    CLEANUP(oci_manifest_done) struct oci_manifest m = {.key = NULL};
    CLEANUP(oci_manifest_done) struct oci_manifest again = {.key = NULL};
    CLEANUP(mem_freep) char *tag = mem_zalloc(size + 1);
    memcpy(tag, data, size);
    check_tag(tag);
    if (oci_manifest_parse((const char *)data, size, &m, NULL) != RC_OK)
        return 0;
    oci_manifest_format(&m, &text);
    if (text.overflowed)
        return 0;
    if (oci_manifest_parse(buf_str(&text), text.len, &again, NULL) != RC_OK || again.n != m.n ||
        again.size != m.size)
        abort();
    return 0;
}
