/* The cold start: become the container's original command. */
#pragma once

#include "entrypoint/settings.h"

/* Run the arguments; without any DEFAULT_CMD, then what images usually have.  Does not return: ends
 * with 127 (no such program) or 126 when nothing can be executed. */
_Noreturn void fallback(const struct settings *s, int argc, char **argv);
