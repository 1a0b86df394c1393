#include "base/clock.h"
#include "base/compiler.h"
#include "base/mem.h"
#include "engine/doctor.h"
#include "harness/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct doctor_finding *find(const struct doctor_report *r, const char *id)
{
    for (size_t i = 0; i < r->n; i++)
        if (strcmp(r->list[i].id, id) == 0)
            return &r->list[i];
    return NULL;
}

static const char *what(const struct doctor_report *r, const char *id)
{
    const struct doctor_finding *f = find(r, id);
    return f ? f->what : "";
}

static void examine(struct doctor_machine m, struct doctor_report *r)
{
    struct err err = ERR_INIT;
    CHECK_OK(doctor_check_machine(&m, r, &err));
    for (size_t i = 0; i < r->n; i++) {
        const struct doctor_finding *f = &r->list[i];
        CHECK(f->what && f->pid == 0);
        CHECK((f->level == DOCTOR_OK) == (f->why == NULL));
        CHECK(!f->remedy || f->remedy[strlen(f->remedy) - 1] == '.');
        CHECK(f->level != DOCTOR_FAIL || f->remedy);
    }
}

static void expect(const struct doctor_report *r, const char *id, enum doctor_level level)
{
    const struct doctor_finding *f = find(r, id);
    if (!f || f->level != level)
        test_fail(__FILE__, __LINE__, "%s: %s", id, f ? f->what : "not looked at");
}

TEST(every_machine_has_a_kernel_and_proc)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    examine((struct doctor_machine){0}, &r);
    expect(&r, "kernel", DOCTOR_OK);
    expect(&r, "proc", DOCTOR_OK);
    expect(&r, "criu", DOCTOR_FAIL); /* none was named */
    CHECK(!find(&r, "store"));
}

static int write_program(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");
    return !f || fputs(text, f) < 0 || fclose(f) != 0 || chmod(path, 0755) != 0;
}

TEST(a_criu_that_does_not_run_is_found)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CLEANUP(doctor_report_done) struct doctor_report gone = DOCTOR_REPORT_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/criu", test_dir());
    CHECK(write_program(path, "#!/bin/sh\necho wrong libc >&2\nexit 1\n") == 0);
    examine((struct doctor_machine){.criu = path}, &r);
    expect(&r, "criu", DOCTOR_FAIL);
    CHECK(strstr(what(&r, "criu"), "wrong libc"));
    examine((struct doctor_machine){.criu = "/no/such/criu"}, &gone);
    expect(&gone, "criu", DOCTOR_FAIL);
}

TEST(a_criu_that_hangs_does_not_hang_us)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/criu", test_dir());
    CHECK(write_program(path, "#!/bin/sh\nexec sleep 1000\n") == 0);
    uint64_t begun = clock_now();
    examine((struct doctor_machine){.criu = path, .deadline = begun + 300 * CLOCK_MS}, &r);
    expect(&r, "criu", DOCTOR_FAIL);
    CHECK(clock_now() - begun < 10 * CLOCK_S);
}

TEST(a_good_criu_is_found_good)
{
    const char *root = getenv("CHREK_SOURCE_ROOT");
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/build/criu/sbin/criu", root ? root : ".");
    if (access(path, X_OK) < 0)
        test_skip("no CRIU was built");
    if (geteuid() != 0)
        test_skip("machine: needs root");
    examine((struct doctor_machine){.criu = path}, &r);
    expect(&r, "criu", DOCTOR_OK);
    expect(&r, "criu-check", DOCTOR_OK);
    expect(&r, "soft-dirty", DOCTOR_OK);
    CHECK(find(&r, "userfaultfd"));
    CHECK(strstr(what(&r, "criu"), "CRIU 4."));
}

TEST(a_store_that_is_not_there_yet_is_fine)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/not/there/yet", test_dir());
    examine((struct doctor_machine){.store = path}, &r);
    CHECK(strstr(what(&r, "store"), "there/yet"));
    CHECK(find(&r, "store") != doctor_first(&r, DOCTOR_FAIL));
    CHECK(find(&r, "store-space"));
}

TEST(a_store_by_its_url_is_the_directory_that_it_names)
{
    static const char *const schemes[] = {"file", "object"};
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/file", test_dir());
    CHECK(write_program(path, "") == 0 && chmod(path, 0600) == 0);
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
        CLEANUP(mem_freep) char *url = mem_asprintf("%s://%s", schemes[i], path);
        examine((struct doctor_machine){.store = url}, &r);
        expect(&r, "store", DOCTOR_FAIL); /* it is no directory */
    }
}

TEST(a_store_elsewhere_is_not_mistaken_for_a_directory_here)
{
    static const char *const urls[] = {"s3://bucket/x", "az://container"};
    for (size_t i = 0; i < ARRAY_LEN(urls); i++) {
        CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
        examine((struct doctor_machine){.store = urls[i]}, &r);
        expect(&r, "store", DOCTOR_WARN);
        CHECK(strstr(what(&r, "store"), "not looked at") && !find(&r, "store-space"));
    }
}

TEST(a_store_that_is_a_file_is_found)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CLEANUP(mem_freep) char *path = mem_asprintf("%s/file", test_dir());
    CHECK(write_program(path, "") == 0 && chmod(path, 0600) == 0);
    examine((struct doctor_machine){.store = path}, &r);
    expect(&r, "store", DOCTOR_FAIL);
}

TEST(a_small_store_in_memory_is_found)
{
    if (geteuid() != 0 || mount("tmpfs", test_dir(), "tmpfs", 0, "size=1m") < 0)
        test_skip("machine: may not mount");
    struct doctor_report r = DOCTOR_REPORT_INIT;
    struct doctor_machine m = {.store = test_dir()};
    struct err err = ERR_INIT;
    enum rc rc = doctor_check_machine(&m, &r, &err);
    CHECK(umount(test_dir()) == 0);
    CHECK_OK(rc);
    expect(&r, "store", DOCTOR_WARN);
    expect(&r, "store-space", DOCTOR_FAIL);
    doctor_report_done(&r);
}

TEST(a_user_without_rights_is_told_to_become_root)
{
    if (geteuid() != 0)
        test_skip("machine: needs root");
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct doctor_report r = DOCTOR_REPORT_INIT;
        CHECK(setresuid(65534, 65534, 65534) == 0);
        examine((struct doctor_machine){0}, &r);
        expect(&r, "root", DOCTOR_FAIL);
        expect(&r, "namespaces", DOCTOR_FAIL);
        CHECK(!find(&r, "capability"));
        doctor_report_done(&r);
        _exit(0);
    }
    int status = 0;
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

TEST(levels_have_names_and_an_order)
{
    CLEANUP(doctor_report_done) struct doctor_report r = DOCTOR_REPORT_INIT;
    CHECK_INT(doctor_worst(&r), DOCTOR_OK);
    CHECK_STR(doctor_level_name(DOCTOR_OK), "ok");
    CHECK_STR(doctor_level_name(DOCTOR_WARN), "warn");
    CHECK_STR(doctor_level_name(DOCTOR_FAIL), "fail");
    CHECK(!doctor_first(&r, DOCTOR_OK));
}
