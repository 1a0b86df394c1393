/* chrek: the command line. */
#include "cli/cli.h"
#include "cli/program.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* A descriptor 0, 1 or 2 that is closed would be taken by the next file opened. */
static void fill_standard_streams(void)
{
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= 2);
    if (fd > 2)
        (void)close(fd);
}

int main(int argc, char **argv)
{
    fill_standard_streams();
    if (argc < 2) {
        (void)program_help(NULL);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        word = "help";
    if (strcmp(word, "--version") == 0)
        word = "version";
    const struct opt_command *c = program_find(word);
    if (!c)
        return program_unknown(word);
    if (opt_asks_for_help(c, argc - 2, argv + 2))
        return program_help(c);
    cli_set_command(c->name);
    return c->run(c, argc - 2, argv + 2);
}
