#include "base/compiler.h"
#include "base/mem.h"
#include "entrypoint/ctk_hook.h"
#include "harness/test.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OLD "/run/nvidia-ctk-hook0a1b"
#define NEW "/run/nvidia-ctk-hook77ff"

TEST(where_it_was_says_the_log_first)
{
    static const char log[] = "(00.1) mnt: 12: @ ./proc type proc\n"
                              "(00.2) nvidia-ctk-hook is spoken of here\n"
                              "(00.3) mnt: 13: 57:/ @ ." OLD " rw,nosuid\n"
                              "(00.4) mnt: 14: 58:/ @ ./run/nvidia-ctk-hookxxxx rw\n";
    static const char json[] = "{\"mounts\": [{\"container_path\": \"/data\"}, "
                               "{\"container_path\": \"" NEW "\"}]}";
    CLEANUP(mem_freep) char *from_log = ctk_hook_old(log, json, sizeof(json) - 1);
    CHECK_STR(from_log, OLD);
    CLEANUP(mem_freep) char *from_json = ctk_hook_old("nothing\n", json, sizeof(json) - 1);
    CHECK_STR(from_json, NEW);
    CHECK(!ctk_hook_old("", "", 0));
    CHECK(!ctk_hook_old("no end of line @ ./x", "{", 1));
}

TEST(where_it_is_says_mountinfo)
{
    static const char text[] = "22 1 0:5 / / rw - overlay overlay rw\n"
                               "23 22 0:6 / /run/nvidia-ctk-hook/deeper rw - tmpfs tmpfs rw\n"
                               "24 22 0:7 / " NEW " rw,nosuid - tmpfs tmpfs rw\n";
    CLEANUP(mem_freep) char *found = ctk_hook_new(text);
    CHECK_STR(found, NEW);
    CHECK(!ctk_hook_new("22 1 0:5 / / rw - overlay overlay rw\n"));
}

TEST(the_old_path_leads_to_the_new)
{
    struct err err = ERR_INIT;
    char path[PATH_MAX], target[64];
    for (int i = 0; i < 2; i++) { /* also when it is there */
        CLEANUP(mem_freep) char *external = NULL;
        CHECK_OK(ctk_hook_map(test_dir(), OLD, NEW, &external, &err));
        CHECK_STR(external, "mnt[" OLD "]:" NEW);
    }
    (void)snprintf(path, sizeof(path), "%s" OLD, test_dir());
    ssize_t n = readlink(path, target, sizeof(target) - 1);
    CHECK(n > 0);
    target[n] = '\0';
    CHECK_STR(target, NEW);
}

TEST(a_log_cannot_make_links_elsewhere)
{
    struct err err = ERR_INIT;
    char *external = NULL;
    static const char *const bad[] = {"/etc/nvidia-ctk-hook", "/run/nvidia-ctk-hook/../../etc/x",
                                      "/run/nvidia-ctk-hookx/y", ""};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        CHECK_RC(ctk_hook_map(test_dir(), bad[i], NEW, &external, &err), RC_INVALID);
    CHECK(!external);
}
