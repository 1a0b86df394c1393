/* The command line of NVIDIA's cuda-checkpoint, so that what calls it can call us: scripts, and
 * CRIU's own plugin.  Results on standard output, errors on standard error, exit status 0 or 1.
 * Threads: the program's main thread only. */
#pragma once

int tool_main(int argc, char **argv);
