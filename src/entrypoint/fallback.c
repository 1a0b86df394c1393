#include "entrypoint/fallback.h"

#include "base/mem.h"
#include "entrypoint/log.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 256

/* Whether a word names a program: by a path, or through PATH. */
static bool is_program(const char *word)
{
    if (strchr(word, '/'))
        return access(word, X_OK) == 0;
    const char *path = getenv("PATH");
    path = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    while (*path) {
        size_t n = strcspn(path, ":");
        char *candidate = mem_asprintf("%.*s/%s", (int)n, path, word);
        bool good = access(candidate, X_OK) == 0;
        free(candidate);
        if (good)
            return true;
        path += n + (path[n] == ':');
    }
    return false;
}

static _Noreturn void become(char **argv)
{
    log_info("Executing command", "command", argv[0], NULL);
    (void)execvp(argv[0], argv);
    int why = errno;
    log_error("Cannot execute", "command", argv[0], "error", strerror(why), NULL);
    _exit(why == ENOENT ? 127 : 126);
}

static _Noreturn void shell(const char *line)
{
    char *argv[] = {mem_strdup("/bin/sh"), mem_strdup("-c"), mem_strdup(line), NULL};
    become(argv);
}

/* Split on blanks if the first word is a program, else let a shell make sense of it. */
static _Noreturn void run_line(const char *line)
{
    char *words[WORDS_MAX + 1], *save = NULL, *copy = mem_strdup(line);
    size_t n = 0;
    for (char *w = strtok_r(copy, " \t", &save); w && n < WORDS_MAX;
         w = strtok_r(NULL, " \t", &save))
        words[n++] = w;
    words[n] = NULL;
    if (n && is_program(words[0]))
        become(words);
    shell(line);
}

_Noreturn void fallback(const struct settings *s, int argc, char **argv)
{
    if (argc == 1 && strpbrk(argv[0], " \t") && !is_program(argv[0]))
        shell(argv[0]);
    if (argc > 0)
        become(argv);
    if (s->default_cmd)
        run_line(s->default_cmd);
    if (access("/docker-entrypoint.sh", X_OK) == 0)
        shell("exec /docker-entrypoint.sh nginx -g 'daemon off;'");
    if (is_program("nginx"))
        run_line("nginx");
    run_line("sleep infinity");
}
