"""A CRIU that hangs, dies or is interrupted: what it held goes on, and nothing is left."""

import os
import pathlib
import signal
import subprocess
import sys
import time

from lib import wait_for

# Enough memory that a dump of page images takes a while, and a line for each step of its life.
COUNTER = """
import sys, time
ballast = bytearray(range(256)) * (1 << 20)
n = 0
while True:
    n += 1
    print('tick', n, flush=True)
    time.sleep(0.01)
"""


class Program:
    """A program of our own, outside of any box."""

    def __init__(self, t, code=COUNTER):
        self.log = t.dir / f"program-{len(os.listdir(t.dir))}.txt"
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=out, start_new_session=True,
                                            env=dict(t.env, MARK=str(t.dir)))
        self.pid = self.process.pid

    def ticks(self):
        return self.log.read_text().count("\n")

    def goes_on(self, timeout=60):
        seen = self.ticks()
        wait_for("life", lambda: self.ticks() > seen + 3, timeout)

    def __enter__(self):
        wait_for("ticks", lambda: self.ticks() > 3)
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def state(pid):
    try:
        return pathlib.Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def criu_of(parent):
    """The CRIU that is a child of that process, 0 while there is none."""
    for d in os.listdir("/proc"):
        try:
            if not d.isdigit() or b"swrk" not in pathlib.Path("/proc", d, "cmdline").read_bytes():
                continue
            stat = pathlib.Path("/proc", d, "stat").read_text().rsplit(")", 1)[1].split()
            if int(stat[1]) == parent and stat[0] != "Z":
                return int(d)
        except OSError:
            continue
    return 0


def stop_criu_in_a_dump(t, program, *options):
    """Begin a checkpoint, and stop its CRIU while the program is frozen; chrek and CRIU's PID."""
    for _ in range(50):
        p = t.start("checkpoint", "--format", "plain", "--replace", "--id", "x", *options, program.pid)
        criu = wait_for("CRIU", lambda q=p: criu_of(q.pid) or q.poll() is not None)
        while p.poll() is None:
            if state(program.pid) != "t":
                continue
            os.kill(criu, signal.SIGSTOP)
            wait_for("a CRIU that stands", lambda: state(criu) in "TZgone")
            if state(criu) == "T" and state(program.pid) == "t":
                return p, criu
            os.kill(criu, signal.SIGCONT)
            break
        p.wait(60)
    raise AssertionError("no dump was slow enough")


def nothing_left(t, criu):
    wait_for("CRIU's end", lambda: state(criu) in ("gone", "Z"), 30)
    wait_for("an empty staging place", lambda: not list(t.store.glob("x.tmp-*")), 30)


def test_a_signal_frees_a_program_whose_criu_hangs(t):
    """SIGTERM, SIGINT, SIGHUP: CRIU is ended, the program runs, nothing is staged, 128 + signal."""
    with Program(t) as program:
        for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            for options in ((), ("--stop",)):
                p, criu = stop_criu_in_a_dump(t, program, *options)
                p.send_signal(sig)
                assert p.wait(60) == 128 + sig, p.text()
                assert f"interrupted by {sig.name}" in p.text(), p.text()
                assert "the program goes on" in p.text(), p.text()
                program.goes_on()
                nothing_left(t, criu)
                t.chrek("delete", "x", check=False)
        t.chrek("checkpoint", "--id", "whole", program.pid)
        assert "whole" in t.chrek("verify", "whole").stdout


def test_a_killed_chrek_leaves_no_frozen_program(t):
    """kill -9 of chrek while its CRIU hangs: the program goes on all the same."""
    with Program(t) as program:
        p, criu = stop_criu_in_a_dump(t, program)
        p.kill()
        p.wait(60)
        wait_for("CRIU's end", lambda: state(criu) in ("gone", "Z"), 60)
        program.goes_on()


TREE = """
import os, threading, time
for _ in range(2):
    if os.fork() == 0:
        break
for _ in range(3):
    threading.Thread(target=lambda: [time.sleep(0.001) for _ in iter(int, 1)], daemon=True).start()
while True:
    os.write(1, b'%d tick\\n' % os.getpid())
    time.sleep(0.01)
"""


def maps(pid):
    try:
        return pathlib.Path("/proc", str(pid), "maps").read_text()
    except OSError:
        return ""


def kill_criu_in_a_dump(t, program, sig, pause):
    """Begin a checkpoint, and kill its CRIU a moment after it has frozen the program; what was said."""
    p = t.start("checkpoint", "--replace", "--id", "x", program.pid)
    criu = wait_for("CRIU", lambda: criu_of(p.pid) or p.poll() is not None)
    while p.poll() is None and state(program.pid) != "t":
        pass
    time.sleep(pause)
    if p.poll() is None and state(criu) not in ("gone", "Z"):
        os.kill(criu, sig)
    return p.wait(60), p.text()


def test_a_criu_that_dies_in_a_dump_leaves_nothing_in_the_program(t):
    """SIGSEGV, SIGKILL at any moment: each process goes on as it was, or is said to be lost."""
    seen = 0
    for n in range(12):
        with Program(t, TREE) as program:
            tree = [program.pid, *map(int, pathlib.Path(
                f"/proc/{program.pid}/task/{program.pid}/children").read_text().split())]
            sig = (signal.SIGSEGV, signal.SIGKILL)[n % 2]
            code, said = kill_criu_in_a_dump(t, program, sig, n * 0.002)
            lost = [pid for pid in tree if state(pid) in ("gone", "Z")]
            for pid in tree:
                assert (pid in lost) == (f"{pid} (" in said), (pid, lost, said)
                assert "CRIUMFD" not in maps(pid), said
            assert code or not lost, said
            for pid in set(tree) - set(lost):
                count = program.log.read_text().count(f"{pid} tick")
                wait_for(f"life of {pid}", lambda p=pid, c=count: program.log.read_text().count(
                    f"{p} tick") > c + 2)
            seen += f"CRIU was killed by signal {int(sig)}" in said
            for pid in tree:
                if pid not in lost:
                    os.kill(pid, signal.SIGKILL)
    assert seen, "no CRIU was killed in time"
