#include "base/compiler.h"
#include "criu/gate.h"
#include "harness/test.h"

#include <poll.h>
#include <unistd.h>

static bool has_ended(int fd)
{
    struct pollfd p = {fd, POLLIN, 0};
    return poll(&p, 1, 0) > 0 && (p.revents & POLLHUP) && !(p.revents & POLLIN);
}

TEST(a_gate_is_opened_by_one_byte_and_shut_by_its_end)
{
    struct err err = ERR_INIT;
    char byte = 0;
    CLEANUP(cr_gate_shut) struct cr_gate g = CR_GATE_NOTHING;
    CHECK_OK(cr_gate_make(0, &g, &err));
    CHECK_STR(g.env, "CHREK_GATE_FD=64");
    int theirs = dup(g.from);
    cr_gate_handed(&g);
    CHECK(!has_ended(theirs));
    CHECK_OK(cr_gate_open(&g, &err));
    CHECK_INT(read(theirs, &byte, 1), 1);
    CHECK_INT(byte, 'g');
    cr_gate_shut(&g);
    CHECK(has_ended(theirs));
    (void)close(theirs);
}

TEST(without_a_gate_all_may_run)
{
    struct err err = ERR_INIT;
    struct cr_gate g = CR_GATE_NOTHING;
    CHECK_OK(cr_gate_open(&g, &err));
    cr_gate_shut(&g);
}

TEST(a_criu_without_the_addition_does_not_wait)
{
    CHECK(!cr_can_wait("/bin/true"));
    CHECK(!cr_can_wait("/nowhere/sbin/criu"));
}
