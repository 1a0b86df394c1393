#include "base/compiler.h"
#include "engine/container.h"
#include "harness/test.h"

#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static size_t times(char **list, const char *text)
{
    size_t n = 0;
    for (; *list; list++)
        n += strcmp(*list, text) == 0;
    return n;
}

TEST(every_mount_but_the_root_is_external_once_and_so_is_the_network)
{
    struct err err = ERR_INIT;
    static const char *const masked[] = {"/proc/kcore", "/proc", NULL};
    CLEANUP(container_external_freep) char **list = NULL;
    char net[64];
    struct stat st;
    CHECK(stat("/proc/self/ns/net", &st) == 0);
    (void)snprintf(net, sizeof(net), "net[%ju]:extNetNs", (uintmax_t)st.st_ino);
    CHECK_OK(container_external(getpid(), masked, &list, &err));
    CHECK_INT(times(list, "mnt[/proc]:/proc"), 1); /* mounted, and masked */
    CHECK_INT(times(list, "mnt[/proc/kcore]:/proc/kcore"), 1);
    CHECK_INT(times(list, "mnt[/]:/"), 0);
    CHECK_INT(times(list, net), 1);
}

TEST(a_process_that_has_gone_has_no_mounts)
{
    struct err err = ERR_INIT;
    char **list = NULL;
    CHECK_RC(container_external(4194303, NULL, &list, &err), RC_NOT_FOUND);
    CHECK(!list);
}
