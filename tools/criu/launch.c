/* PREFIX/sbin/criu: runs PREFIX/libexec/criu with the loader and the libraries of PREFIX/lib.
 *
 * Static, so that it starts in any root directory whatever libc that has, and not a shell script,
 * because there may be no shell.  Found by /proc/self/exe, so that PREFIX may be moved or mounted
 * elsewhere; the loader's --preload, unlike LD_PRELOAD, is not inherited by what CRIU executes.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

struct path {
    char text[7 * PATH_MAX + 128];
};

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "criu: %s: %s\n", what, strerror(errno));
    exit(127);
}

/* The directory above the one this program lies in. */
static void find_prefix(char *prefix, size_t size)
{
    const char *name = (const char *)getauxval(AT_EXECFN);
    ssize_t len = name ? (ssize_t)strlen(name) : 0;
    bool held = name && strncmp(name, "/proc/self/fd/", 14) == 0 && (size_t)len < size;
    if (held) /* a descriptor of PREFIX, from where it has a path to here, where it may have none */
        memcpy(prefix, name, (size_t)len);
    else
        len = readlink("/proc/self/exe", prefix, size - 1);
    if (len < 0) { /* no /proc here: the name we were started by */
        if (!name || !realpath(name, prefix))
            die("cannot find myself");
        len = (ssize_t)strlen(prefix);
    }
    prefix[len] = '\0';
    for (int up = 0; up < 2; up++) {
        char *slash = strrchr(prefix, '/');
        if (!slash) {
            errno = ENOENT;
            die(prefix);
        }
        *slash = '\0';
    }
}

static char *in_prefix(struct path *p, const char *prefix, const char *file)
{
    (void)snprintf(p->text, sizeof(p->text), "%s/%s", prefix, file);
    return p->text;
}

int main(int argc, char **argv)
{
    char prefix[PATH_MAX];
    struct path loader, lib, shims, criu;

    find_prefix(prefix, sizeof(prefix));
    (void)snprintf(shims.text, sizeof(shims.text),
                   "%s/lib/prlimit.so:%s/lib/pages.so:%s/lib/keep.so:%s/lib/facts.so:"
                   "%s/lib/detach.so:%s/lib/hold.so:%s/lib/restart.so",
                   prefix, prefix, prefix, prefix, prefix, prefix, prefix);
    char *fixed[] = {
        in_prefix(&loader, prefix, "lib/ld.so"),
        "--argv0",
        argc > 0 ? argv[0] : "criu",
        "--library-path",
        in_prefix(&lib, prefix, "lib"),
        "--preload",
        shims.text,
        in_prefix(&criu, prefix, "libexec/criu"),
    };
    enum { FIXED = sizeof(fixed) / sizeof(fixed[0]) };

    char **args = calloc(FIXED + (size_t)argc + 1, sizeof(*args));
    if (!args)
        die("calloc");
    memcpy(args, fixed, sizeof(fixed));
    for (int i = 1; i < argc; i++)
        args[FIXED + i - 1] = argv[i];
    execv(args[0], args);
    die(args[0]);
}
