#include "entrypoint/app_place.h"

#include "base/compiler.h"
#include "base/fs.h"

#include <stddef.h>
#include <unistd.h>

const char *app_place_make(void)
{
    static const char *const places[] = {"/run/chrek/app", "/tmp/chrek/app"};
    for (size_t i = 0; i < ARRAY_LEN(places); i++)
        if (fs_mkdirs(places[i], 0755, NULL) == RC_OK && access(places[i], W_OK) == 0)
            return places[i];
    return NULL;
}
