"""Whole checkpoints and restores, with the real CRIU, over a real object store."""

import contextlib
import pathlib
import re
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
import lib  # noqa: E402
import proxy  # noqa: E402

MODES = ("full", "workingset", "lazy")

# What it prints depends on every byte of its memory; too much of it for one request.
COUNTER = """
import random, time, zlib
ballast = random.Random(4).randbytes(12 << 20)
n = 0
while True:
    n += 1
    print('tick', n, zlib.crc32(ballast), flush=True)
    time.sleep(0.05)
"""
COMMAND = ("python3", "-c", COUNTER)


def ticks(p):
    found = re.findall(r"^tick (\d+) (\d+)\n", p.text(), re.M)
    assert len({crc for _, crc in found}) < 2, p.text()
    return [(int(n), crc) for n, crc in found]


@contextlib.contextmanager
def test(server, prefix, **env):
    """A test whose store is on the server; it must leave nothing behind, here or there."""
    t = lib.Test(prefix)
    t.env = {k: v for k, v in t.env.items() if not k.startswith(("AWS_", "AZURE_"))}
    t.env |= {"CHREK_STORE": server.url(prefix), **server.environment(), **env}
    t.env["TMPDIR"] = str(t.tmpfs("tmp"))
    try:
        yield t
        left = [str(x) for x in (t.dir / "tmp").rglob("*")]
        assert not left, left
    except Exception as error:
        raise RuntimeError(f"{error}\n{t.diagnosis()}") from error
    finally:
        t.close()
    lib.check_leaks(t)


def save(t, *options):
    p = t.start("run", "--name", "c", "--ready", "log:tick 3", "--stop", *options, "--", *COMMAND)
    assert p.wait(120) == 0, p.text()
    assert ticks(p), p.text()
    return ticks(p)[-1]


def check_goes_on(t, last, mode):
    p = t.start("restore", "--mode", mode, "c")
    lib.wait_for("ticks", lambda: p.poll() is not None or len(ticks(p)) > 3)
    assert ticks(p) and ticks(p)[0] == (last[0] + 1, last[1]), (mode, last, p.text())
    assert t.stop(p) == -signal.SIGTERM, p.text()


def check_life(t, server, prefix, *options):
    last = save(t, *options)
    t.chrek("verify", "c", timeout=120)
    for mode in MODES:
        check_goes_on(t, last, mode)
    assert t.json("ls")[0]["usable"]
    t.chrek("delete", "c")
    t.chrek("gc")
    left = [name for name in server.names(f"{prefix}/") if "/keys/" not in name]
    assert not left, left


def programs_live_again_in_every_mode(server):
    with test(server, "live/clear") as t:
        check_life(t, server, "live/clear")


def a_restore_leaves_a_record_and_the_next_begins_with_it(server):
    with test(server, "live/record") as t:
        last, record = save(t), "live/record/workingset/c"
        assert record not in server.names("live/record/")
        check_goes_on(t, last, "lazy")
        assert record in server.names("live/record/")
        assert t.json("inspect", "c")["stored"]["working_set_pages"] > 0
        check_goes_on(t, last, "workingset")
        t.chrek("delete", "c")
        assert record not in server.names("live/record/")


def encrypted_programs_live_again_in_every_mode(server):
    with test(server, "live/sealed") as t:
        t.chrek("key", "generate", t.dir / "key")
        t.env["CHREK_KEY_FILE"] = str(t.dir / "key")
        check_life(t, server, "live/sealed")


def plain_programs_live_again(server):
    with test(server, "live/plain") as t:
        last = save(t, "--format", "plain")
        check_goes_on(t, last, "full")


def a_running_program_is_saved_and_copied(server):
    """The worker is a child of who has asked the store before; a copy goes to a directory and on."""
    with test(server, "live/copy") as t:
        p = t.start("run", "--name", "c", "--ready", "log:tick 3", "--", *COMMAND)
        lib.wait_for("checkpoint", lambda: p.poll() is not None or "saved" in p.text())
        t.chrek("checkpoint", "c", "--id", "d", timeout=120)
        t.stop(p)
        sizes = {c["id"]: c["bytes"] for c in t.json("ls")}
        assert sizes["d"] < sizes["c"] / 2, sizes
        t.chrek("copy", t.env["CHREK_STORE"], t.dir / "there", "c", "d", timeout=120)
        t.chrek("verify", "--store", t.dir / "there", "c", "d")
        assert t.json("copy", t.dir / "there", t.env["CHREK_STORE"], "d")[0]["there"]


def many_restores_read_the_storage_once(server):
    """Ten at the same time, with a cache that is empty: they read 1.05 times what one reads."""
    with test(server, "live/many") as t, proxy.Counting(server.port) as counter:
        t.env["CHREK_STORE"] = server.url("live/many", counter.port)
        last = save(t)

        def restores(n, cache):
            before = counter.received
            all_of_them = [t.start("restore", "--name", f"r{i}", "--cache", t.dir / cache, "c")
                           for i in range(n)]
            for p in all_of_them:
                lib.wait_for("ticks", lambda p=p: p.poll() is not None or len(ticks(p)) > 1)
                assert ticks(p) and ticks(p)[0] == (last[0] + 1, last[1]), p.text()
            for p in all_of_them:
                assert t.stop(p) == -signal.SIGTERM, p.text()
            return counter.received - before

        one = restores(1, "one")
        many = restores(10, "many")
        assert one > 12 << 20, one
        assert many < 1.05 * one, (one, many)
        print(f"# one restore reads {one} bytes, ten read {many}", flush=True)


def a_network_that_breaks_off_is_not_noticed(server):
    """Five times all connections end in a capture, and in each restore; nothing is lost or mixed."""
    cuts = [k * 1500000 for k in range(1, 6)]
    with test(server, "live/cuts") as t:
        def through(proxy_):
            t.env["CHREK_STORE"] = server.url("live/cuts", proxy_.port)
        with proxy.Cutting(server.port, cuts, False) as p:
            through(p)
            last = save(t)
            assert not p.cuts, p.cuts
        for mode in MODES:
            with proxy.Cutting(server.port, cuts, False) as p:
                through(p)
                check_goes_on(t, last, mode)


def a_network_that_dies_leaves_no_checkpoint(server):
    """At once, in the middle, near the end: the capture fails and says why; a restore starts cold."""
    with test(server, "live/dies") as t, contextlib.ExitStack() as stack:
        def started(where, at, *words):
            p = stack.enter_context(proxy.Cutting(server.port, [at], True))
            env = {**t.env, "CHREK_STORE": server.url(where, p.port)}
            return t.start(*words, "--", *COMMAND, env=env)
        save(t)
        whole = t.json("ls")[0]["bytes"]
        places = {f"live/dies-{part}": int(whole * part / 100) for part in (0, 40, 90)}
        ends = [started(where, at, "run", "--name", where[5:], "--ready", "log:tick 3", "--stop")
                for where, at in places.items()]
        cold = started("live/dies", whole // 2, "run", "--name", "c", "--ready", "never")
        for p in ends:
            assert p.wait(180) == 123 and "no checkpoint" in p.text(), p.text()
        lib.wait_for("a cold start", lambda: cold.poll() is not None or len(ticks(cold)) > 1, 180)
        assert ticks(cold)[0][0] == 1, cold.text()
        t.stop(cold)
        for where in places:
            assert t.json("ls", "--store", server.url(where)) == []
        t.chrek("verify", "c", timeout=120)


TESTS = [programs_live_again_in_every_mode, a_restore_leaves_a_record_and_the_next_begins_with_it,
         encrypted_programs_live_again_in_every_mode,
         plain_programs_live_again, a_running_program_is_saved_and_copied,
         many_restores_read_the_storage_once]
