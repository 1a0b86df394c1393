#include "store/key_command.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/errand.h"
#include "base/mem.h"
#include "codec/secret.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WORDS_MAX 64
static const char variable[] = "CHREK_KEY_OPERATION=";

/* Cuts `text` into words in place; their number, 0 when there are none or too many. */
static size_t split(char *text, char *words[WORDS_MAX + 1])
{
    static const char blanks[] = " \t\n";
    size_t n = 0;
    for (char *save = NULL, *w = strtok_r(text, blanks, &save); w;
         w = strtok_r(NULL, blanks, &save)) {
        if (n == WORDS_MAX)
            return 0;
        words[n++] = w;
    }
    words[n] = NULL;
    return n;
}

/* Our environment and the variable; the strings are borrowed. */
static char **environment(char *operation)
{
    size_t n = 0, kept = 0;
    while (environ[n])
        n++;
    char **env = mem_zalloc((n + 2) * sizeof(*env));
    for (size_t i = 0; i < n; i++)
        if (strncmp(environ[i], variable, sizeof(variable) - 1) != 0)
            env[kept++] = environ[i];
    env[kept] = operation;
    return env;
}

static enum rc judge(int status, size_t answered, struct err *err)
{
    if (status == ERRAND_NOT_STARTED)
        return err_set(err, RC_UNAVAILABLE,
                       "it cannot be started; is its path right, and is it "
                       "executable? It is run without a shell");
    if (status)
        return err_set(err, RC_UNAVAILABLE, "it failed with status %d", status);
    return answered ? RC_OK : err_set(err, RC_CORRUPT, "it answered nothing");
}

enum rc key_command_run(const char *command, bool wrap, uint64_t timeout_ns, const void *in,
                        size_t len, void *out, size_t cap, size_t *out_len, struct err *err)
{
    char *words[WORDS_MAX + 1];
    CLEANUP(mem_freep) char *text = mem_strdup(command);
    if (split(text, words) == 0)
        return err_set(err, RC_INVALID, "the key command has no words, or more than %d", WORDS_MAX);
    CLEANUP(mem_freep) char *operation = mem_asprintf("%s%s", variable, wrap ? "wrap" : "unwrap");
    CLEANUP(mem_freep) char **env = environment(operation);
    size_t got = 0;
    int status = 0;
    enum rc rc =
        errand_run(words, env, in, len, clock_now() + timeout_ns, out, cap, &got, &status, err);
    if (!rc)
        rc = judge(status, got, err);
    if (rc)
        secret_wipe(out, cap);
    else
        *out_len = got;
    return rc ? err_ctx(err, rc, "key command '%.64s'", words[0]) : RC_OK;
}
