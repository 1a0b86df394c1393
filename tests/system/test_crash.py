"""A process that dies, or a step that fails, anywhere in a checkpoint or a restore."""

import os
import re
import signal
import subprocess

from lib import ROOT, Skip, wait_for
from test_basics import COUNTER, ticks

FAULTY = os.environ.get("CHREK_FAULTY") or str(ROOT / "build/test/src/chrek")
CHECKPOINT_STEPS = ("look", "examine", "stage", "launch", "dump", "publish")
RESTORE_STEPS = ("gate", "verify", "files", "identity", "memory", "launch", "criu", "adopt", "notify")


def faulty(t, fault, *args):
    """Run the build that has fault points in it."""
    if not os.path.exists(FAULTY):
        raise Skip("no build with fault points: tools/build test")
    done = subprocess.run([FAULTY, *args], env=dict(t.env, CHREK_FAULT=fault), text=True,
                          capture_output=True, timeout=60, cwd=t.dir)
    t.outputs.append((args, done.returncode, done.stdout, done.stderr))
    return done


def test_a_checkpoint_that_dies_or_fails_at_any_step(t):
    """Whatever step fails or dies: no checkpoint, no left-over that counts, a program that goes on."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    for stop in ((), ("--stop",)):
        for step in CHECKPOINT_STEPS:
            for how in ("fail", "kill"):
                if step == "publish" and stop:
                    continue  # stored by then, on purpose, and the program ended
                done = faulty(t, f"{step}:{how}", "checkpoint", *stop, "--id", "x", "c")
                assert done.returncode == (-signal.SIGKILL if how == "kill" else 1), (step, done)
                assert not (t.store / "x").exists(), step
                seen = len(ticks(p))
                wait_for(f"life after {step}:{how}", lambda n=seen: len(ticks(p)) > n + 2, 20)
                assert t.json("ls") == []
    t.chrek("checkpoint", "--stop", "--id", "x", "c")
    assert "whole" in t.chrek("verify", "x").stdout
    assert p.wait(30) == 0


def test_a_restore_that_dies_or_fails_at_any_step(t):
    """Whatever step fails: the reason and a cold start; whatever dies: nothing is left running."""
    p = t.run_until_saved("c", "after:0.3", "python3", "-c", COUNTER, options=["--stop"])
    assert p.wait(30) == 0
    for step in RESTORE_STEPS:
        done = faulty(t, f"{step}:fail", "run", "--name", "c", "--ready", "never", "--", "sh", "-c",
                      "echo cold; exit 3")
        assert done.returncode == 3 and done.stdout == "cold\n", (step, done)
        assert "Falling back to cold start" in done.stderr and "CHREK_FAULT" in done.stderr
        done = faulty(t, f"{step}:kill", "run", "--name", "c", "--", "echo", "cold")
        assert done.returncode == -signal.SIGKILL, (step, done)
    assert "whole" in t.chrek("verify", "c").stdout
    again = t.start("restore", "c")
    wait_for("ticks", lambda: ticks(again))
    t.stop(again)


def test_a_criu_that_dies_before_it_ends_the_tree(t):
    """--stop, the checkpoint is published, CRIU dies: the program is ended all the same."""
    env = dict(t.env, **t.between("post-dump", "kill"))
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    t.chrek("checkpoint", "--stop", "--id", "box", "c", env=env)
    assert p.wait(20) == 0, p.text()
    outside = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; sleep 1000; true"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
    try:
        child = int(outside.stdout.readline())
        t.chrek("checkpoint", "--stop", "--id", "outside", outside.pid, env=env)
        assert outside.wait(10) == -signal.SIGKILL
        wait_for("the child's end", lambda: not os.path.exists(f"/proc/{child}/exe")
                 or not os.access(f"/proc/{child}/exe", os.R_OK), 10)
    finally:
        outside.kill()
        outside.stdout.close()
    for name in ("box", "outside"):
        assert "whole" in t.chrek("verify", name).stdout


def test_a_stop_that_is_interrupted_too_late(t):
    """--stop, the checkpoint is published, then Ctrl-C: the program is ended all the same."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    c = t.start("checkpoint", "--stop", "--timeout", "2s", "--id", "x", "c",
                env=dict(t.env, **t.between("post-dump", "hang")))
    wait_for("the word of it", lambda: os.path.exists("/run/chrek/boxes/c/stopped"))
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        c.send_signal(sig)
    assert p.wait(30) == 0 and c.wait(30) == 0, (p.text(), c.text())


def test_a_stop_that_did_not_come_about(t):
    """A checkpoint --stop that is killed has stopped nothing: a later crash is a crash."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "sh", "-c",
                "echo up; while [ ! -e go ]; do sleep 0.05; done; kill -SEGV $$")
    wait_for("the program", lambda: "up" in p.text())
    c = t.start("checkpoint", "--stop", "--id", "x", "c",
                env=dict(t.env, **t.between("query-ext-files", "hang")))
    wait_for("the staging directory", lambda: list(t.store.glob("x.tmp-*")))
    t.stop(c, signal.SIGKILL)
    (t.dir / "go").touch()
    assert p.wait(30) == -signal.SIGSEGV, p.text()
    assert not t.saved("x")


SAMPLES = int(os.environ.get("CHREK_TEST_FAULTS", "12"))  # of each kind; 0 = every call
CRASHED = 77  # FAULT_EXIT_STATUS of base/sys.h


def fault_points(done):
    """The numbers of the calls to break: all of them, or some of them from first to last."""
    n = int(re.search(r"^fault points: (\d+)$", done.stderr, re.M).group(1))
    assert n > 20, n
    return range(0, n, max(1, n // SAMPLES) if SAMPLES else 1)


def test_a_checkpoint_in_which_any_call_fails(t):
    """Each system call of ours fails or kills us in turn: a whole checkpoint or none, a live program."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    for form in ("packed", "plain"):
        checkpoint = ("checkpoint", "--format", form, "--id", "x", "c")
        points = fault_points(faulty(t, "call:count", *checkpoint))
        t.chrek("delete", "x")
        for how in ("fail", "kill"):
            for n in points:
                done = faulty(t, f"call:{n}:{how}", *checkpoint)
                assert how == "fail" or done.returncode in (0, CRASHED), (form, n, done)
                there = t.chrek("verify", "x", check=False)
                assert there.returncode in (0, 3), (form, n, how, done, there)
                assert there.returncode == 0 or done.returncode != 0, (form, n, how, done)
                seen = len(ticks(p))
                wait_for(f"life after {n}:{how}", lambda s=seen: len(ticks(p)) > s, 20)
                if there.returncode == 0:
                    t.chrek("delete", "x")
    t.chrek("checkpoint", "--stop", "--id", "x", "c")
    assert "whole" in t.chrek("verify", "x").stdout
    assert p.wait(30) == 0


def test_a_restore_in_which_any_call_fails(t):
    """Each system call of ours fails in turn: restored all the same, or cold with the reason."""
    script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); sleep 0.05; done; echo restored; exit 4"
    for form in ("packed", "plain"):
        p = t.run_until_saved(form, "after:0.3", "sh", "-c", script,
                              options=["--stop", "--format", form])
        assert p.wait(30) == 0
        run = ("run", "--name", form, "--ready", "never", "--", "sh", "-c", "echo cold; exit 3")
        for n in fault_points(faulty(t, "call:count", *run)):
            done = faulty(t, f"call:{n}:fail", *run)
            restored = (done.returncode, done.stdout) == (4, "restored\n")
            cold = (done.returncode, done.stdout) == (3, "cold\n")
            assert restored or cold and "Falling back to cold start" in done.stderr, (form, n, done)
        assert "whole" in t.chrek("verify", form).stdout
