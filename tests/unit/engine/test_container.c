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
    static const char *const more[] = {"file[1:2]:f", NULL};
    const struct engine_container c = {.masked_paths = masked, .external = more};
    CLEANUP(container_external_freep) char **list = NULL;
    char net[64];
    struct stat st;
    CHECK(stat("/proc/self/ns/net", &st) == 0);
    (void)snprintf(net, sizeof(net), "net[%ju]:extNetNs", (uintmax_t)st.st_ino);
    CHECK_OK(container_external(getpid(), &c, &list, &err));
    CHECK_INT(times(list, "mnt[/proc]:/proc"), 1); /* mounted, and masked */
    CHECK_INT(times(list, "mnt[/proc/kcore]:/proc/kcore"), 1);
    CHECK_INT(times(list, "mnt[/]:/"), 0);
    CHECK_INT(times(list, net), 1);
    CHECK_INT(times(list, "file[1:2]:f"), 1);
}

TEST(a_process_that_has_gone_has_no_mounts)
{
    struct err err = ERR_INIT;
    char **list = NULL;
    const struct engine_container c = {.node = NULL};
    CLEANUP(metadata_done) struct metadata m = {.checkpoint_id = NULL};
    CHECK_RC(container_external(4194303, &c, &list, &err), RC_NOT_FOUND);
    CHECK(!list);
    CHECK_RC(container_describe(4194303, &c, &m, &err), RC_NOT_FOUND);
}

#define PODS "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/"

/* Root, /proc, an emptyDir, a projected token, a memory volume, the runtime's hosts file; an
 * emptyDir in memory, a tmpfs of nobody's, and an emptyDir in memory that is saved as /dev/shm. */
static const char table[] =
    "1 0 0:60 / / rw - overlay overlay rw,upperdir=/var/lib/containerd/io.containerd.x/1/fs\n"
    "2 1 0:61 / /proc rw - proc proc rw\n"
    "3 1 8:1 /var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/data /data rw - ext4 /dev/sda "
    "rw\n"
    "4 1 0:62 / /run/secrets/token ro,relatime - tmpfs /kubelet/pods/u rw\n"
    "5 1 8:1 /var/lib/kubelet/pods/u/volumes/kubernetes.io~projected/kube/x /tok ro - ext4 d rw\n"
    "6 1 8:1 /var/lib/containerd/io.containerd.grpc.v1.cri/hosts /etc/hosts rw - ext4 /dev/sda "
    "errors=remount-ro\n"
    "7 1 0:63 / /cache rw - tmpfs tmpfs rw\n"
    "8 1 0:64 / /scratch rw - tmpfs tmpfs rw\n"
    "9 1 0:65 / /dev/shm rw - tmpfs tmpfs rw\n";

TEST(volumes_are_told_by_the_contracts_rule)
{
    struct err err = ERR_INIT;
    static const char *const options[] = {"rbind", "rw", NULL};
    static const char *const masked[] = {"/proc/kcore", NULL};
    static const struct engine_oci_mount oci[] = {
        {.destination = "/proc", .source = "proc", .type = "proc"},
        {.destination = "/data", .source = "/h/data", .type = "bind", .options = options},
        {.destination = "/cache", .source = PODS "cache", .type = "bind"},
        {.destination = "/dev/shm", .source = PODS "shm", .type = "bind"}};
    const struct engine_container c = {.mounts = oci, .n_mounts = 4, .masked_paths = masked};
    CLEANUP(mounts_done) struct mounts all = {0};
    CLEANUP(metadata_place_done) struct metadata_place p = {.mounts = NULL};
    CHECK_OK(mounts_parse(table, strlen(table), &all, &err));
    container_describe_mounts(&all, &c, &p);
    CHECK_INT(p.n_mounts, 4);
    CHECK_STR(p.mounts[0].container_path, "/data");
    CHECK_STR(p.mounts[0].host_path,
              "/var/lib/kubelet/pods/u/volumes/kubernetes.io~empty-dir/data");
    CHECK_STR(p.mounts[0].volume_type, "emptyDir");
    CHECK_STR(p.mounts[0].volume_name, "data");
    CHECK_STR(p.mounts[0].fs_type, "ext4");
    CHECK_STR(p.mounts[0].oci_source, "/h/data");
    CHECK_STR(p.mounts[0].oci_options[1], "rw");
    CHECK(!p.mounts[0].read_only);
    CHECK_STR(p.mounts[1].volume_type, "projected");
    CHECK_STR(p.mounts[1].volume_name, "kube");
    CHECK(p.mounts[1].read_only && !p.mounts[1].oci_source);
    CHECK_STR(p.mounts[2].volume_type, "unknown");
    CHECK_STR(p.mounts[2].volume_name, "");
    CHECK(!p.mounts[2].read_only); /* errors=remount-ro is another thing */
    CHECK_STR(p.mounts[3].container_path, "/cache");
    CHECK_STR(p.mounts[3].host_path, "tmpfs");
    CHECK_STR(p.mounts[3].volume_type, "emptyDir");
    CHECK_STR(p.mounts[3].volume_name, "cache");
    CHECK_STR(p.bind_mount_dests[0], "/data");
    CHECK_STR(p.bind_mount_dests[2], "/dev/shm");
    CHECK(!p.bind_mount_dests[3] && !p.readonly_paths);
    CHECK_STR(p.masked_paths[0], "/proc/kcore");
}

TEST(a_process_is_described_with_its_namespaces)
{
    struct err err = ERR_INIT;
    const struct engine_container c = {.node = "n", .pod_name = "p"};
    CLEANUP(metadata_done) struct metadata m = {.checkpoint_id = NULL};
    CHECK_OK(container_describe(getpid(), &c, &m, &err));
    CHECK(m.container);
    CHECK_STR(m.source_node, "n");
    CHECK_STR(m.pod_name, "p");
    CHECK_INT(m.place.n_namespaces, 7);
    for (size_t i = 0; i < 7; i++)
        CHECK(m.place.namespaces[i].inode > 0);
}
