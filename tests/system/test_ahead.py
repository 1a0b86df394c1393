"""Short freezes: memory that is read while the program runs, and programs that are ended early."""

import os

from lib import wait_for
from test_basics import COUNTER, ticks
from test_crash import faulty
from test_pager import MODES, ended_well, restore
from test_workloads import built

RUNS = int(os.environ.get("CHREK_TEST_AHEAD", "4"))


def rounds(p):
    return p.text().count(" ok\n")


def churning(t, megabytes, *options):
    """A tree that changes its address spaces all the time, and checks every byte of them."""
    (t.dir / "go").unlink(missing_ok=True)
    p = t.start("run", "--name", "c", "--cold", "--ready", "never", *options, "--",
                built(t, "churn.c"), megabytes, t.dir / "go", "on")
    wait_for("rounds", lambda: rounds(p) > 1 or p.poll() is not None)
    return p


def finish(t, p):
    seen = rounds(p)
    wait_for("more rounds", lambda: rounds(p) > seen or p.poll() is not None)
    (t.dir / "go").touch()
    ended_well(p)


def test_read_ahead(t):
    """A tree that maps, moves, drops, forks and writes without a pause is read ahead and restored:
    every byte is what it must be, in the original and in each copy."""
    for i in range(RUNS):
        p = churning(t, 64)
        done = t.chrek("checkpoint", "--incremental", "--id", f"a{i}", "c")
        assert "stands still for all" not in done.stderr, done.stderr
        finish(t, p)
        (t.dir / "go").unlink()
        again = restore(t, MODES[i % 2], f"a{i}")
        ended_well(again)
        t.chrek("delete", f"a{i}")


def test_read_ahead_of_the_restored(t):
    """A restored tree is read ahead again, ended, and restored once more."""
    p = churning(t, 32)
    t.chrek("checkpoint", "--incremental", "--stop", "--id", "one", "c")
    assert p.wait(60) == 0, p.text()
    again = t.start("restore", "--quiet", "--mode", "full", "--name", "c", "one")
    wait_for("rounds", lambda: rounds(again) > 1 or again.poll() is not None)
    t.chrek("checkpoint", "--incremental", "--stop", "--early", "--id", "two", "c")
    assert again.wait(60) == 0, again.text()
    ended_well(restore(t, "lazy", "two"))


def test_unwatched(t):
    """What cannot be watched is read in the freeze, and that is said; a plain checkpoint cannot."""
    script = ("import ctypes, time\nctx = ctypes.c_ulong(0)\n"  # io_setup()
              "assert ctypes.CDLL(None).syscall(206, 8, ctypes.byref(ctx)) == 0\n"
              "print('ready', flush=True)\ntime.sleep(60)")
    p = t.start("run", "--name", "u", "--ready", "never", "--", "python3", "-c", script)
    wait_for("ready", lambda: "ready" in p.text() or p.poll() is not None)
    done = t.chrek("checkpoint", "--incremental", "--id", "u", "u")
    assert "aio" in done.stderr and "may write to the memory" in done.stderr, done
    t.stop(p)
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    done = t.chrek("checkpoint", "--incremental", "--format", "plain", "c", check=False)
    assert done.returncode == 2 and "plain" in done.stderr, done
    t.stop(p)


def test_ended_early(t):
    """With --early the program is gone before its checkpoint is stored; a failure says what is lost."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    t.chrek("checkpoint", "--stop", "--early", "--id", "x", "c")
    assert p.wait(30) == 0, p.text()
    assert "whole" in t.chrek("verify", "x").stdout
    last = ticks(p)[-1]
    again = t.start("restore", "--name", "c", "x")
    wait_for("ticks", lambda: ticks(again))
    assert ticks(again)[0] == last + 1
    done = faulty(t, "publish:fail", "checkpoint", "--stop", "--early", "--id", "y", "c")
    assert done.returncode == 1 and "ended early" in done.stderr, done
    assert not (t.store / "y").exists()
    again.wait(30)


def test_again_and_again(t):
    """--every: the checkpoint is replaced while the program goes on, also when it was restored."""
    def made(i):
        return t.json("inspect", i)["created_at"] if t.saved(i) else None

    options = ("--ready", "after:0.2", "--every", "1s", "--incremental")
    p = t.start("run", "--name", "c", *options, "--", "python3", "-c", COUNTER)
    for p in (p, None):
        p = p or t.start("run", "--name", "c", *options, "--", "python3", "-c", COUNTER)
        first = wait_for("a checkpoint", lambda: made("c"))
        second = wait_for("a second one", lambda f=first: made("c") != f and made("c"))
        wait_for("a third one", lambda s=second: made("c") not in (s, None))
        last = ticks(p)[-1]
        t.stop(p)
        wait_for("its end", lambda: not [b for b in t.json("status")["boxes"] if b["name"] == "c"])
    again = t.start("restore", "c")
    wait_for("ticks", lambda: ticks(again))
    assert ticks(again)[0] > 5 and ticks(again)[0] <= last + 20
    t.stop(again)
