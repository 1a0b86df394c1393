#include "criu/facts.h"

#include "base/buf.h"
#include "base/compiler.h"
#include "base/fs.h"
#include "base/sys.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"
#define BOOT_ID_LEN 36

static bool find_name(const char *criu, char out[CR_FACTS_NAME])
{
    CLEANUP(buf_done) struct buf boot = BUF_INIT;
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = {{0}};
    struct stat user, program;
    if (fs_read_file(AT_FDCWD, BOOT_ID, 64, &boot, NULL) != RC_OK || boot.len < BOOT_ID_LEN ||
        stat(criu, &program) < 0 || stat("/proc/self/ns/user", &user) < 0 ||
        syscall(SYS_capget, &header, caps) < 0)
        return false;
    (void)snprintf(out, CR_FACTS_NAME, "%.*s-%ju-%jd-%ju-%08x%08x", BOOT_ID_LEN, buf_str(&boot),
                   (uintmax_t)program.st_ino, (intmax_t)program.st_mtime, (uintmax_t)user.st_ino,
                   caps[1].effective, caps[0].effective);
    return true;
}

int cr_facts_open(const char *path, const char *criu, char out_name[CR_FACTS_NAME])
{
    char name[CR_FACTS_NAME];
    struct stat st;
    /* As root only: without rights CRIU finds out, and keeps, other things. */
    if (geteuid() != 0 || !find_name(criu, name) || fs_mkdirs(path, 0700, NULL) != RC_OK)
        return -1;
    CLEANUP(fd_closep) int dir = sys_openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (dir < 0 || fstat(dir, &st) < 0 || st.st_uid != 0 || st.st_mode & 0022)
        return -1;
    memcpy(out_name, name, sizeof(name));
    return fd_steal(&dir);
}
