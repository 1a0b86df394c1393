#include "entrypoint/criu_log.h"

#include "base/compiler.h"
#include "base/fs.h"
#include "base/mem.h"
#include "base/sys.h"
#include "entrypoint/log.h"
#include "store/store.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME "restore.log"
#define SHOWN ((off_t)16 << 20)

void criu_log_forget(const struct settings *s)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" NAME, s->work_dir);
    (void)unlink(path);
}

static void print(const char *path)
{
    char chunk[65536];
    size_t n = 0;
    struct stat st;
    CLEANUP(fd_closep) int fd = sys_openat(AT_FDCWD, path, O_RDONLY, 0);
    if (fd < 0 || fstat(fd, &st) < 0)
        return;
    log_error(st.st_size > SHOWN ? "CRIU log follows, its last 16 MiB" : "CRIU log follows", "path",
              path, NULL);
    if (st.st_size > SHOWN)
        (void)lseek(fd, -SHOWN, SEEK_END);
    do {
        if (sys_read_full(fd, chunk, sizeof(chunk), &n, NULL) != RC_OK ||
            sys_write_all(STDOUT_FILENO, chunk, n, NULL) != RC_OK)
            return;
    } while (n == sizeof(chunk));
}

void criu_log_show(const struct settings *s, const struct store_entry *entry, bool failed)
{
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/" NAME, s->work_dir);
    if (access(path, F_OK) < 0)
        return;
    (void)!fs_copy_file(AT_FDCWD, path, AT_FDCWD, "/tmp/criu-restore.log", 0644, NULL);
    if (!store_entry_metadata(entry)->key)
        (void)!fs_copy_file(AT_FDCWD, path, store_entry_fd(entry), NAME, 0644, NULL);
    if (failed)
        print(path);
}
