#include "base/compiler.h"
#include "base/sys.h"
#include "container/maps.h"
#include "harness/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

TEST(areas_are_parsed_with_any_name)
{
    static const char text[] =
        "00400000-00452000 r-xp 00001000 fe:01 173521      /usr/bin/a b (deleted)\n"
        "7ffd1000-7ffd2000 rw-s 00000000 00:00 0 \n"
        "7ffd2000-7ffd3000 ---p 00000000 00:00 0                          [stack]\n";
    struct err err = ERR_INIT;
    CLEANUP(maps_done) struct maps m = {0};
    CHECK_OK(maps_parse(text, strlen(text), &m, &err));
    CHECK_INT(m.n, 3);
    CHECK_INT(m.list[0].start, 0x400000);
    CHECK_INT(m.list[0].end, 0x452000);
    CHECK_INT(m.list[0].off, 0x1000);
    CHECK_INT(m.list[0].flags, MAPS_READ | MAPS_EXEC);
    CHECK_INT(m.list[0].major, 0xfe);
    CHECK_INT(m.list[0].ino, 173521);
    CHECK_STR(m.list[0].name, "/usr/bin/a b (deleted)");
    CHECK_STR(m.list[1].name, "");
    CHECK_INT(m.list[1].flags, MAPS_READ | MAPS_WRITE | MAPS_SHARES);
    CHECK_INT(m.list[2].flags, 0);
}

TEST(smaps_adds_flags_to_the_area_before)
{
    static const char text[] = "1000-2000 rw-p 00000000 00:00 0 \nSize:  4 kB\n"
                               "VmFlags: rd wr lo ht sl zz\n"
                               "2000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd io ss\n";
    struct err err = ERR_INIT;
    CLEANUP(maps_done) struct maps m = {0};
    CHECK_OK(maps_parse(text, strlen(text), &m, &err));
    CHECK_INT(m.n, 2);
    CHECK_INT(m.list[0].flags, MAPS_READ | MAPS_WRITE | MAPS_LOCKS | MAPS_HUGE | MAPS_SEALED);
    CHECK_INT(m.list[1].flags, MAPS_READ | MAPS_WRITE | MAPS_IO | MAPS_SHADOW);
}

TEST(areas_that_make_no_sense_are_refused)
{
    static const char *const bad[] = {
        "x",
        "1000 rw-p 0 00:00 0",
        "2000-1000 rw-p 0 00:00 0",
        "1000-2000 rw- 0 00:00 0",
        "1000-2000 rw-x 0 00:00 0",
        "1000-2000 rw-p z 00:00 0",
        "1000-2000 rw-p 0 0000 0",
        "1000-2000 rw-p 0 00:00 x",
        "1000-2000 rw-p 0 00:00",
        "10000000000000000-20000000000000000 rw-p 0 00:00 0",
    };
    struct err err = ERR_INIT;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct maps m = {.n = 5};
        CHECK_RC(maps_parse(bad[i], strlen(bad[i]), &m, &err), RC_CORRUPT);
        CHECK_INT(m.n, 5);
    }
}

static const struct map *area_of(const struct maps *m, const void *p)
{
    for (size_t i = 0; i < m->n; i++)
        if (m->list[i].start <= (uintptr_t)p && (uintptr_t)p < m->list[i].end)
            return &m->list[i];
    test_fail(__FILE__, __LINE__, "no area of %p", p);
}

TEST(our_own_memory_is_found_with_its_flags)
{
    struct err err = ERR_INIT;
    CLEANUP(maps_done) struct maps plain = {0};
    CLEANUP(maps_done) struct maps full = {0};
    CLEANUP(fd_closep) int self = sys_openat(AT_FDCWD, "/proc/self", O_RDONLY | O_DIRECTORY, 0);
    char *p = mmap(NULL, 8192, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(p != MAP_FAILED && syscall(SYS_mlock, p, 8192) == 0);
    CHECK_OK(maps_read(self, false, &plain, &err));
    CHECK_OK(maps_read(self, true, &full, &err));
    CHECK_INT(area_of(&plain, p)->flags, MAPS_READ | MAPS_SHARES);
    CHECK_INT(area_of(&full, p)->flags, MAPS_READ | MAPS_SHARES | MAPS_LOCKS | MAPS_MAY_WRITE);
    /* Not a variable: the address sanitizer may have put that elsewhere. */
    CHECK_STR(area_of(&plain, __builtin_frame_address(0))->name, "[stack]");
}
