#include "base/compiler.h"
#include "container/mounts.h"
#include "entrypoint/mounts.h"
#include "harness/test.h"

#include <string.h>

static const char mountinfo[] =
    "20 1 0:40 / / rw - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w\n"
    "21 20 0:41 / /proc rw - proc proc rw\n"
    "22 20 8:1 /volumes/a\\040b /with\\040blank rw - ext4 /dev/sda1 rw\n";

static char **map_of(const char *metadata, const char *hook)
{
    struct err err = ERR_INIT;
    CLEANUP(mounts_done) struct mounts now = {.n = 0};
    char **map = NULL;
    CHECK_OK(mounts_parse(mountinfo, strlen(mountinfo), &now, &err));
    CHECK_OK(mounts_map(&now, metadata, strlen(metadata), hook, &map, &err));
    return map;
}

static int count(char **map, const char *text)
{
    int n = 0;
    for (char **p = map; *p; p++)
        n += strcmp(*p, text) == 0;
    return n;
}

TEST(the_root_and_what_is_mounted_now_map_to_themselves)
{
    CLEANUP(mounts_freep) char **map = map_of("{}", NULL);
    CHECK_STR(map[0], "mnt[/]:.");
    CHECK(count(map, "mnt[/proc]:/proc") == 1 && count(map, "mnt[/]:/") == 0);
    CHECK_INT(count(map, "mnt[/with blank]:/with blank"), 1);
}

TEST(every_list_of_the_metadata_counts_once)
{
    CLEANUP(mounts_freep)
    char **map =
        map_of("{\"masked_paths\": [\"/proc/kcore\", \"/m\"], \"readonly_paths\": [\"/r\"],"
               "\"bind_mount_dests\": [\"/b\", \"/etc/hosts\"],"
               "\"mounts\": [{\"container_path\": \"/\"}, {\"container_path\": \"/tmp\"},"
               "{\"container_path\": \"/b\"},"
               "{\"container_path\": \"/run/nvidia-ctk-hook1\"}]}",
               "mnt[/run/nvidia-ctk-hook1]:/run/nvidia-ctk-hook2");
    static const char *const want[] = {"mnt[/proc/kcore]:/proc/kcore",
                                       "mnt[/m]:/m",
                                       "mnt[/r]:/r",
                                       "mnt[/b]:/b",
                                       "mnt[/etc/hosts]:/etc/hosts",
                                       "mnt[/tmp]:/tmp",
                                       "mnt[/run/nvidia-ctk-hook1]:/run/nvidia-ctk-hook2"};
    for (size_t i = 0; i < ARRAY_LEN(want); i++)
        CHECK_INT(count(map, want[i]), 1);
    CHECK_INT(count(map, "mnt[/proc/sys]:/proc/sys"), 0);
    CHECK_INT(count(map, "mnt[/run/nvidia-ctk-hook1]:/run/nvidia-ctk-hook1"), 0);
}

TEST(without_masked_paths_those_of_every_runtime_count)
{
    CLEANUP(mounts_freep) char **map = map_of("{\"readonly_paths\": [\"/r\"]}", NULL);
    CHECK_INT(count(map, "mnt[/proc/sys]:/proc/sys"), 1);
    CHECK_INT(count(map, "mnt[/sys/firmware]:/sys/firmware"), 1);
    CHECK_INT(count(map, "mnt[/r]:/r"), 1);
}

TEST(a_path_that_leads_elsewhere_is_refused)
{
    static const char *const bad[] = {"{\"masked_paths\": [\"relative\"]}",
                                      "{\"mounts\": [{\"container_path\": \"/a/../b\"}]}",
                                      "{\"bind_mount_dests\": [7]}", "no JSON"};
    struct mounts now = {.n = 0};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct err err = ERR_INIT;
        char **map = NULL;
        CHECK_RC(mounts_map(&now, bad[i], strlen(bad[i]), NULL, &map, &err), RC_CORRUPT);
        CHECK(map == NULL);
    }
}
