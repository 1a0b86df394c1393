/* A pod as an API server tells of it: what is read has what every pod has, within limits. */
#include "base/compiler.h"
#include "codec/json.h"
#include "kube/pod.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP(json_docp) yyjson_doc *doc = NULL;
    CLEANUP(kube_pod_done) struct kube_pod p = {.name = NULL};
    if (json_parse("it", (const char *)data, size, &doc, NULL) != RC_OK ||
        kube_pod_read(yyjson_doc_get_root(doc), &p, NULL) != RC_OK)
        return 0;
    if (!*p.name || !*p.name_space || !*p.uid || p.n_containers > KUBE_POD_CONTAINERS_MAX)
        abort();
    return 0;
}
