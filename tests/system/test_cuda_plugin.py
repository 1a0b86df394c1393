"""cuda_plugin.so: plain `criu` saves and restores programs that use a GPU, by the fake driver."""

import os
import pathlib
import re
import subprocess

from lib import CHREK, Skip, find, wait_for

BUILD = pathlib.Path(CHREK).resolve().parents[1]
FAKES = BUILD / "tests/fakes/libcuda"
CRIU = find("CHREK_CRIU", "build/criu/sbin/criu")


def environment(**more):
    if not (FAKES / "libcuda.so.1").exists():
        raise Skip("the fake driver is not built")
    return dict(os.environ, LD_LIBRARY_PATH=str(FAKES), CHREK_GPU=str(BUILD / "src/chrek-gpu"), **more)


class Program:
    """A program that takes a step for each line of a fifo and writes to a file."""

    def __init__(self, t, *command, env=None):
        self.fifo, self.out = t.dir / "in", t.dir / "x.out"
        os.mkfifo(self.fifo)
        self.p = subprocess.Popen(["setsid", "sh", "-c", 'exec "$@" <>"$0" >"$OUT" 2>&1',
                                   str(self.fifo), *map(str, command)], close_fds=True,
                                  stdin=subprocess.DEVNULL, cwd="/",
                                  env=dict(env or environment(), OUT=str(self.out)))
        self.pid = self.p.pid
        wait_for("the program", lambda: self.out.exists() and "ready" in self.out.read_text())

    def steps(self):
        return re.findall(r"^step .*$", self.out.read_text(), re.M)

    def take(self):
        before = len(self.steps())
        with open(self.fifo, "r+b", buffering=0) as f:
            f.write(b"\n")
            wait_for("a step", lambda: len(self.steps()) > before)
        return self.steps()


def criu(t, action, *args, env=None):
    images = t.dir / "images"
    images.mkdir(exist_ok=True)
    done = subprocess.run([CRIU, action, "-D", images, "-o", f"{action}.log", "-v4", "-L",
                           BUILD / "plugin", *map(str, args)], env=env or environment(), text=True,
                          capture_output=True, timeout=60, check=False)
    log = images / f"{action}.log"
    return done.returncode, log.read_text(errors="replace") if log.exists() else done.stderr


def expected(n):
    done = subprocess.run([FAKES / "cuda_workload", "2"], input="\n" * n, env=environment(),
                          text=True, check=True, capture_output=True, timeout=60)
    return re.findall(r"^step .*$", done.stdout, re.M)


def test_plain_criu_saves_and_restores_gpu_memory(t):
    """criu dump --leave-running, go on, dump, restore: each step as if nothing had happened."""
    want = expected(4)
    p = Program(t, FAKES / "cuda_workload", 2)
    p.take()
    code, log = criu(t, "dump", "-t", p.pid, "--leave-running")
    assert code == 0, log[-3000:]
    assert p.take() == want[:2]
    code, log = criu(t, "dump", "-t", p.pid)
    assert code == 0, log[-3000:]
    p.p.wait(30)
    assert b"cuda_plugin" in (t.dir / "images/inventory.img").read_bytes()
    code, log = criu(t, "restore", "-d")
    assert code == 0, log[-3000:]
    assert p.take() == want[:3] and p.take() == want
    os.kill(p.pid, 9)


def test_a_dump_that_fails_gives_the_gpu_back(t):
    """The driver refuses: criu dump fails with the reason in its log, and the program goes on."""
    p = Program(t, FAKES / "cuda_workload", 2)
    p.take()
    for fault, word in (("checkpoint=fail:801", "cudaMallocManaged"), ("lock=fail:600", "in time")):
        code, log = criu(t, "dump", "-t", p.pid, env=environment(CHREK_FAKE_CUDA=fault))
        assert code != 0 and word in log, log[-3000:]
        p.take()
    code, log = criu(t, "dump", "-t", p.pid, env=environment() | {"CHREK_GPU": "/no/such/program"})
    assert code != 0 and "/no/such/program" in log, log[-3000:]
    assert p.take() == expected(4)
    os.kill(p.pid, 9)
    p.p.wait(30)


def test_a_program_without_gpu_is_none_of_its_business(t):
    """A dump of a program without CUDA starts no helper, and its restore asks for no plugin."""
    env = environment() | {"CHREK_GPU": "/no/such/program"}
    p = Program(t, "sh", "-c", "echo ready; n=0; while read x; do n=$((n+1)); echo step $n; done",
                env=env)
    p.take()
    code, log = criu(t, "dump", "-t", p.pid, env=env)
    assert code == 0, log[-3000:]
    p.p.wait(30)
    assert b"cuda_plugin" not in (t.dir / "images/inventory.img").read_bytes()
    code, log = criu(t, "restore", "-d", env=env)
    assert code == 0, log[-3000:]
    assert p.take() == ["step 1", "step 2"]
    os.kill(p.pid, 9)
