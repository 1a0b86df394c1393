/* Where the application finds its directory (engine/appdir.h) in a container.  Threads: the
 * program's main thread only. */
#pragma once

/* Make it: /run/chrek/app, or what can be written of /tmp.  NULL: nowhere. */
const char *app_place_make(void);
