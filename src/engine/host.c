#include "engine/host.h"

#include "base/clock.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/num.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

#define CPUINFO_MAX ((size_t)8 << 20)

/* The value of the first line "key\t: value" of /proc/cpuinfo, or NULL. */
static char *cpu_line(const char *text, const char *key)
{
    size_t n = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        const char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, n) != 0 || (line[n] != '\t' && line[n] != ' '))
            continue;
        colon += 1 + (colon[1] == ' ');
        return mem_asprintf("%.*s", (int)strcspn(colon, "\n"), colon);
    }
    return NULL;
}

static char *cpu_flags(void)
{
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    if (fs_read_file(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MAX, &text, NULL) != RC_OK)
        return NULL;
    char *flags = cpu_line(buf_str(&text), "flags");
    return flags ? flags : cpu_line(buf_str(&text), "Features");
}

void host_describe(struct metadata *m)
{
    struct utsname u;
    char now[CLOCK_RFC3339_LEN];
    CLEANUP(buf_done) struct buf text = BUF_INIT;
    clock_rfc3339(now);
    (void)uname(&u);
    m->created_at = mem_strdup(now);
    m->source_node = mem_strdup(u.nodename);
    m->kernel = mem_strdup(u.release);
    m->arch = mem_strdup(u.machine);
    m->chrek_version = mem_strdup(CHREK_VERSION);
    m->cpu_flags = cpu_flags();
    if (fs_read_file(AT_FDCWD, "/proc/cpuinfo", CPUINFO_MAX, &text, NULL) == RC_OK)
        m->cpu_model = cpu_line(buf_str(&text), "model name");
}

static bool has_word(const char *list, const char *word, size_t len)
{
    for (const char *p = list; (p = strstr(p, word)); p++)
        if ((p == list || p[-1] == ' ') && (p[len] == ' ' || p[len] == '\0'))
            return true;
    return false;
}

/* Flags that say what instructions a program may have chosen to use, or how its registers are
 * saved; the rest are of the machine's or kernel's own concern. */
static bool flag_matters(const char *flag, size_t len)
{
    static const char *const kinds[] = {
        "avx",    "sse",    "ssse",   "fma",    "bmi",  "aes",   "sha",     "amx",   "adx",
        "popcnt", "movbe",  "f16c",   "pclmul", "vaes", "gfni",  "vpclmul", "xsave", "lzcnt",
        "abm",    "rdrand", "rdseed", "rtm",    "sve",  "asimd", "atomics"};
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
        if (len >= strlen(kinds[i]) && strncmp(flag, kinds[i], strlen(kinds[i])) == 0)
            return true;
    return false;
}

enum rc host_accepts(const struct metadata *m, struct err *err)
{
    struct utsname u;
    (void)uname(&u);
    if (m->arch && strcmp(m->arch, u.machine) != 0)
        return err_set(err, RC_UNSUPPORTED, "made on %s, this machine is %s", m->arch, u.machine);
    CLEANUP(mem_freep) char *here = cpu_flags();
    if (!m->cpu_flags || !here)
        return RC_OK;
    for (const char *f = m->cpu_flags; *f;) {
        size_t n = strcspn(f, " ");
        CLEANUP(mem_freep) char *flag = mem_asprintf("%.*s", (int)n, f);
        if (flag_matters(f, n) && !has_word(here, flag, n))
            return err_set(err, RC_UNSUPPORTED,
                           "made on a CPU with %s, which this one lacks (%s); restore on a machine "
                           "with the same or a newer CPU",
                           flag, m->cpu_model ? m->cpu_model : "unknown model");
        f += n + (f[n] == ' ');
    }
    return RC_OK;
}

/* "6.1.0-18-amd64": 6 and 1. */
static bool kernel_version(const char *release, uint64_t out[2])
{
    uint64_t major = 0, minor = 0;
    size_t n = strspn(release, "0123456789"), m = release[n] == '.' ? n + 1 : n;
    CLEANUP(mem_freep) char *first = mem_asprintf("%.*s", (int)n, release);
    CLEANUP(mem_freep)
    char *second = mem_asprintf("%.*s", (int)strspn(release + m, "0123456789"), release + m);
    if (num_parse_u64(first, 0, UINT32_MAX, &major, NULL) != RC_OK ||
        num_parse_u64(second, 0, UINT32_MAX, &minor, NULL) != RC_OK)
        return false;
    out[0] = major;
    out[1] = minor;
    return true;
}

char *host_doubt(const struct metadata *m)
{
    struct utsname u;
    uint64_t then[2], now[2];
    (void)uname(&u);
    if (!m->kernel || !kernel_version(m->kernel, then) || !kernel_version(u.release, now))
        return NULL;
    if (now[0] > then[0] || (now[0] == then[0] && now[1] >= then[1]))
        return NULL;
    return mem_asprintf(
        "made on Linux %s, and this machine has the older %s: if the restore fails, "
        "or the program misbehaves, that may be why",
        m->kernel, u.release);
}
