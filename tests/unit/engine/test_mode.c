#include "engine/mode.h"
#include "harness/test.h"

TEST(modes_have_names)
{
    struct err err = ERR_INIT;
    enum engine_mode mode = ENGINE_LAZY;
    CHECK_OK(mode_parse(NULL, &mode, &err));
    CHECK_INT(mode, ENGINE_DEFAULT);
    for (enum engine_mode m = ENGINE_FULL; m <= ENGINE_CRIU; m++) {
        CHECK_OK(mode_parse(mode_name(m), &mode, &err));
        CHECK_INT(mode, m);
    }
    CHECK_RC(mode_parse("default", &mode, &err), RC_INVALID);
    CHECK_RC(mode_parse("", &mode, &err), RC_INVALID);
    CHECK_INT(mode, ENGINE_CRIU);
}
