#include "base/compiler.h"
#include "engine/audit.h"
#include "harness/test.h"

/* ---- rights ---- */

static struct task_status nobody(void)
{
    return (struct task_status){.uid = {1000, 1000, 1000, 1000},
                                .gid = {1000, 1000, 1000, 1000},
                                .caps = {[TASK_CAP_BND] = 0x20},
                                .no_new_privs = true,
                                .seccomp = 2,
                                .seccomp_filters = 1};
}

static void check_refused(const struct task_status *has)
{
    struct err err = ERR_INIT;
    const struct task_status limit = nobody();
    CHECK_RC(audit_rights(&limit, has, &err), RC_DENIED);
}

TEST(the_same_rights_and_fewer_are_fine)
{
    struct err err = ERR_INIT;
    const struct task_status limit = nobody();
    struct task_status has = nobody();
    CHECK_OK(audit_rights(&limit, &has, &err));
    has.caps[TASK_CAP_BND] = 0;
    has.seccomp_filters = 3;
    CHECK_OK(audit_rights(&limit, &has, &err));
}

TEST(every_right_that_is_more_is_refused)
{
    for (int i = 0; i < 4; i++) {
        struct task_status has = nobody();
        has.uid[i] = 0;
        check_refused(&has);
        has = nobody();
        has.gid[i] = 0;
        check_refused(&has);
    }
    for (int i = 0; i < TASK_CAP_COUNT_; i++) {
        struct task_status has = nobody();
        has.caps[i] |= 1;
        check_refused(&has);
        has = nobody();
        has.caps[i] |= 0x20; /* what it could get back is not what it has */
        if (i != TASK_CAP_BND)
            check_refused(&has);
    }
    struct task_status has = nobody();
    has.no_new_privs = false;
    check_refused(&has);
    has = nobody();
    has.seccomp = 0;
    check_refused(&has);
    has = nobody();
    has.seccomp_filters = 0;
    check_refused(&has);
}

TEST(who_may_change_its_user_may_be_restored_as_another)
{
    struct err err = ERR_INIT;
    struct task_status limit = nobody(), has = nobody();
    has.uid[0] = has.gid[0] = 7;
    limit.caps[TASK_CAP_PRM] = 1 << 7; /* setuid */
    CHECK_RC(audit_rights(&limit, &has, &err), RC_DENIED);
    limit.caps[TASK_CAP_PRM] |= 1 << 6; /* setgid */
    CHECK_OK(audit_rights(&limit, &has, &err));
}

/* ---- mounts ---- */

static const char container[] = "1 0 0:9 / / rw - overlay o rw\n"
                                "2 1 0:5 / /proc rw,nosuid - proc p rw\n"
                                "3 2 0:5 /sys /proc/sys ro,nosuid - proc p rw\n"
                                "4 1 8:1 /vol /data rw,nodev - ext4 d rw\n";

static enum rc look(const char *restored)
{
    struct err err = ERR_INIT;
    CLEANUP(mounts_done) struct mounts limit = {0};
    CLEANUP(mounts_done) struct mounts has = {0};
    CHECK_OK(mounts_parse(container, strlen(container), &limit, &err));
    CHECK_OK(mounts_parse(restored, strlen(restored), &has, &err));
    return audit_mounts(&limit, &has, &err);
}

#define ROOT "9 0 0:9 / / rw - overlay o rw\n"
#define PROC "8 9 0:5 / /proc rw,nosuid - proc p rw\n7 8 0:5 /sys /proc/sys ro,nosuid - proc p rw\n"

TEST(the_containers_own_mounts_are_fine)
{
    CHECK_INT(look(container), RC_OK);
    CHECK_INT(look(ROOT PROC), RC_OK); /* a volume less */
    CHECK_INT(look(ROOT PROC "6 9 0:9 /gone /gone rw - overlay o rw\n"), RC_OK);
    CHECK_INT(look(ROOT PROC "6 9 8:1 /vol/x /data/x ro,nodev - ext4 d rw\n"), RC_OK);
}

TEST(other_mounts_are_refused)
{
    CHECK_INT(look(ROOT PROC "6 9 8:1 / /data rw,nodev - ext4 d rw\n"), RC_DENIED);
    CHECK_INT(look(ROOT PROC "6 9 8:2 /vol /data rw,nodev - ext4 d rw\n"), RC_DENIED);
    CHECK_INT(look(ROOT PROC "6 9 0:9 /etc /gone rw - overlay o rw\n"), RC_DENIED);
    CHECK_INT(look(ROOT PROC "6 9 8:1 / /host rw - ext4 d rw\n"), RC_DENIED);
    CHECK_INT(look("9 0 0:8 / / rw - overlay o rw\n" PROC), RC_DENIED);
}

TEST(a_mount_that_is_less_strict_is_refused)
{
    CHECK_INT(look(ROOT PROC "6 9 8:1 /vol /data rw - ext4 d rw\n"), RC_DENIED);
    CHECK_INT(look(ROOT "8 9 0:5 / /proc rw,nosuid - proc p rw\n"
                        "7 8 0:5 /sys /proc/sys rw,nosuid - proc p rw\n"),
              RC_DENIED);
}

TEST(what_hides_something_must_be_there)
{
    CHECK_INT(look(ROOT "8 9 0:5 / /proc rw,nosuid - proc p rw\n"), RC_DENIED);
}

TEST(what_lies_on_another_mount_or_under_it_is_refused)
{
    /* the same proc file system once more, over what hides parts of it */
    CHECK_INT(look(ROOT PROC "6 8 0:5 / /proc rw,nosuid - proc p rw\n"), RC_DENIED);
    /* hidden below: it was mounted before /proc */
    CHECK_INT(look(ROOT "7 9 0:5 /sys /proc/sys ro,nosuid - proc p rw\n"
                        "8 9 0:5 / /proc rw,nosuid - proc p rw\n"),
              RC_DENIED);
}
