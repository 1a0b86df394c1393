#include "backend/drivers.h"
#include "base/compiler.h"
#include "harness/test.h"
#include "unit/backend/conformance.h"

static enum rc open_mem(void *arg, struct backend **out, struct err *err)
{
    (void)arg;
    return backend_mem_open(out, err);
}

static const struct conformance mem = {.open = open_mem};

TEST(conforms)
{
    conformance(&mem);
}

TEST(survives_every_failure)
{
    conformance_failures(&mem);
}
