/* Runs a fuzz target over saved inputs: the corpus is a regression test under any compiler.
 * Arguments are files, or folders of files; a folder that is not there holds none. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rbe");
    if (!f) {
        perror(path);
        return -1;
    }
    static uint8_t buf[1 << 20];
    size_t n = fread(buf, 1, sizeof(buf), f);
    (void)fclose(f);

    /* An exact-size copy lets the address sanitizer see a read past the end. */
    uint8_t *exact = malloc(n ? n : 1);
    if (!exact)
        return -1;
    for (size_t k = 0; k < n; k++)
        exact[k] = buf[k];
    (void)LLVMFuzzerTestOneInput(exact, n);
    free(exact);
    return 1;
}

static int replay(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0)
        return errno == ENOENT ? 0 : -1;
    if (!S_ISDIR(st.st_mode))
        return replay_file(path);

    int total = 0;
    DIR *d = opendir(path);
    struct dirent *e;
    while (d && total >= 0 && (e = readdir(d))) {
        char file[PATH_MAX];
        (void)snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.')
            continue;
        int n = replay(file);
        total = n < 0 ? n : total + n;
    }
    if (d)
        (void)closedir(d);
    return total;
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        int n = replay(argv[i]);
        if (n < 0)
            return 1;
        total += n;
    }
    (void)LLVMFuzzerTestOneInput((const uint8_t *)"", 0);
    printf("%d inputs\n", total);
    return 0;
}
