"""Programs that use a GPU, by the fake driver: the whole path through engine, CRIU and chrek-gpu."""

import json
import os
import pathlib
import re
import signal
import subprocess
import time

from lib import CHREK, Skip, find, wait_for
from test_entrypoint import ENTRYPOINT, INIT, container, settings

FAKES = pathlib.Path(CHREK).resolve().parents[1] / "tests/fakes/libcuda"
GPU = find("CHREK_GPU", "build/plain/src/chrek-gpu")
A = "GPU-00000000-1111-2222-3333-444444444444"
B = "GPU-b0000000-1111-2222-3333-444444444444"
# Starts workloads, and hands each line on to all of them.
PAIR = """
import subprocess, sys
kids = [subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)]
for k in kids:
    k.stdout.readline()
print('ready', flush=True)
for line in sys.stdin:
    for k in kids:
        k.stdin.write(line); k.stdin.flush()
    print(' '.join(k.stdout.readline().strip() for k in kids), flush=True)
"""


def environment(t, **more):
    if not (FAKES / "libcuda.so.1").exists():
        raise Skip("the fake driver is not built")
    return dict(t.env, LD_LIBRARY_PATH=str(FAKES), CHREK_GPU=GPU, **more)


def workload(*args):
    return (FAKES / "cuda_workload", *map(str, args))


def workload_pids():
    """Those that run."""
    found = []
    for pid in os.listdir("/proc"):
        try:
            if pid.isdigit() and os.readlink(f"/proc/{pid}/exe") == str(FAKES / "cuda_workload"):
                found.append(pid)
        except OSError:
            continue
    return found


def steps(p):
    return re.findall(r"^step .*$", p.text(), re.M)


def take(p, n=1):
    """Let the program take n steps; all that it has printed."""
    for _ in range(n):
        before = len(steps(p))
        p.stdin.write(b"\n")
        p.stdin.flush()
        wait_for("a step", lambda b=before: len(steps(p)) > b or p.poll() is not None)
        assert p.poll() is None, p.text()
    return steps(p)


def expected(t, n, *command):
    """What the program prints without chrek."""
    done = subprocess.run(command, input="\n" * n, env=environment(t), text=True, check=True,
                          capture_output=True, timeout=60)
    return re.findall(r"^step .*$", done.stdout, re.M)


def start(t, name, *command, env=None, n=2):
    p = t.start("run", "--name", name, "--ready", "after:3600", "--", *command,
                env=env or environment(t), stdin=subprocess.PIPE)
    wait_for("the program", lambda: "ready" in p.text() or p.poll() is not None)
    take(p, n)
    return p


def restore(t, name, env=None):
    return t.start("restore", name, env=env or environment(t), stdin=subprocess.PIPE)


def test_memory_of_the_gpu_comes_back(t):
    """Saved with its GPU memory, ended, restored twice: every digest as without chrek."""
    want = expected(t, 5, *workload(8))
    p = start(t, "one", *workload(8))
    t.chrek("checkpoint", "one", "--id", "one", "--stop", env=environment(t))
    assert steps(p) == want[:2]
    for _ in range(2):
        again = restore(t, "one")
        assert take(again, 3) == want[2:], again.text()
        t.stop(again)
    shown = t.json("inspect", "one")
    assert shown["gpu"]["driver"] == "580.65.06" and len(shown["gpu"]["processes"]) == 1, shown["gpu"]
    assert shown["gpu"]["devices"][0]["uuid"] == A
    assert {"gpu-lock", "gpu-save"} <= set(shown["timings_ns"]), shown["timings_ns"]
    assert "Fake GPU, 8.0 GiB" in t.chrek("inspect", "one").stdout


def test_the_program_goes_on(t):
    """After a checkpoint that leaves it running the program has its GPU again, and so has the copy."""
    want = expected(t, 5, *workload(4))
    p = start(t, "on", *workload(4))
    done = t.chrek("checkpoint", "on", "--id", "on", "--json", env=environment(t))
    assert "gpu-resume" in json.loads(done.stdout)["steps_ns"]
    assert take(p, 3) == want
    t.stop(p)
    again = restore(t, "on")
    assert take(again, 3) == want[2:]


def test_a_tree_with_two_processes_on_two_gpus(t):
    """Two processes, each on the same two GPUs: all of it comes back."""
    env = environment(t, CHREK_FAKE_GPUS=f"{A},Fake GPU,8192;{B},Fake GPU,8192")
    command = ("python3", "-u", "-c", PAIR, *workload(2, 2))
    p = start(t, "two", *command, env=env)
    t.chrek("checkpoint", "two", "--id", "two", env=env)
    want = take(p, 3)
    assert len(set(want)) == 5 and "on b0000000" in want[0], want
    t.stop(p)
    again = restore(t, "two", env)
    assert take(again, 3) == want[2:]
    shown = t.json("inspect", "two")["gpu"]
    assert len(shown["processes"]) == 2 and len(shown["devices"]) == 2


def test_onto_another_gpu(t):
    """A machine with another GPU of the model takes the program; one with another model does not."""
    want = expected(t, 3, *workload(4))
    start(t, "map", *workload(4))
    t.chrek("checkpoint", "map", "--id", "map", "--stop", env=environment(t))
    again = restore(t, "map", environment(t, CHREK_FAKE_GPUS=f"{B},Fake GPU,8192"))
    assert take(again) == [want[2].replace("on 00000000", "on b0000000")], again.text()
    t.stop(again)
    cases = (({"CHREK_FAKE_GPUS": f"{A},Other GPU,8192"}, "Other GPU"),
             ({"CHREK_FAKE_GPUS": f"{A},Fake GPU,8192,mig"}, "MIG"),
             ({"CHREK_FAKE_GPUS": f"{A},Fake GPU,4096"}, "4096 MiB"),
             ({"CHREK_FAKE_DRIVER": "590.1"}, "590.1"),
             ({"CHREK_FAKE_GPUS": f"{B},Fake GPU,8192", "CHREK_FAKE_DRIVER": "570.1"}, "570.1"),
             ({"CHREK_FAKE_NVML_FAILS": "1"}, "Driver Not Loaded"))
    for more, word in cases:
        done = t.chrek("restore", "map", env=environment(t, **more), check=False)
        assert done.returncode == 125 and word in done.stderr, (more, done.stderr)


def test_what_cannot_be_restored_starts_cold(t):
    """chrek run: another GPU, or a driver that fails or hangs, and the program starts from anew."""
    want = expected(t, 1, *workload(1))
    start(t, "cold", *workload(1))
    t.chrek("checkpoint", "cold", "--id", "cold", "--stop", env=environment(t))
    for more, word in (({"CHREK_FAKE_GPUS": f"{A},Other GPU,8192"}, "Other GPU"),
                       ({"CHREK_FAKE_CUDA": "restore=fail:2"}, "CUDA_ERROR_OUT_OF_MEMORY"),
                       ({"CHREK_FAKE_CUDA": "unlock=fail:999"}, "gpu"),
                       ({"CHREK_FAKE_CUDA": "init=fail:100"}, "CUDA_ERROR_NO_DEVICE")):
        p = t.start("run", "--name", "cold", "--ready", "after:3600", "--", *workload(1),
                    env=environment(t, **more), stdin=subprocess.PIPE)
        if "init" in str(more):  # which the cold program does not get either
            wait_for("the end", lambda p=p: p.poll() is not None)
            assert "cannot be initialised" in p.text(), p.text()
            continue
        wait_for("a cold start", lambda p=p: "ready " in p.text() or p.poll() is not None)
        assert word.lower() in p.text().lower(), p.text()
        assert take(p) == want
        t.stop(p)


def test_a_checkpoint_that_fails_leaves_the_program_running(t):
    """Refused, crashed or hanging driver, failing dump: the reason is said, and the program goes on."""
    want = expected(t, 8, *workload(1))
    p = start(t, "stay", *workload(1), n=1)
    cases = (({"CHREK_FAKE_CUDA": "lock=fail:600"}, "did not end in time"),
             ({"CHREK_FAKE_CUDA": "checkpoint=fail:801"}, "cudaMallocManaged"),
             ({"CHREK_FAKE_CUDA": "checkpoint=fail:2"}, "container's limit"),
             ({"CHREK_FAKE_CUDA": "checkpoint=hang"}, "hangs"),
             ({"CHREK_CRIU": "/bin/false"}, "CRIU"))
    for i, (more, word) in enumerate(cases):
        done = t.chrek("checkpoint", "stay", "--id", "stay", "--timeout", "4s", check=False,
                       env=environment(t, **more))
        assert done.returncode not in (0, 2) and word in done.stderr, (more, done.stderr)
        assert take(p) == want[:i + 2], more
    assert not t.saved("stay")
    t.chrek("checkpoint", "stay", "--id", "stay", "--stop", env=environment(t))
    assert take(restore(t, "stay")) == [want[len(cases) + 1]]


def test_a_dump_that_hangs(t):
    """CRIU hangs with the program frozen: it is let go before its GPU is asked for, and goes on."""
    want = expected(t, 4, *workload(1))
    p = start(t, "hang", *workload(1), n=1)
    for i, stop in enumerate(((), ("--stop",))):
        begun = time.monotonic()
        done = t.chrek("checkpoint", *stop, "hang", "--id", "x", "--timeout", "4s", check=False,
                       env=environment(t, **t.between("query-ext-files", "hang")))
        assert done.returncode == 6 and "stand still" not in done.stderr, done.stderr
        assert time.monotonic() - begun < 30
        assert take(p) == want[:i + 2]
    assert not t.saved("x")


def test_a_checkpoint_that_is_killed(t):
    """chrek is interrupted or killed at any moment: the program has its GPU again, and goes on."""
    want = expected(t, 9, *workload(1))
    p = start(t, "kill", *workload(1), n=1)
    pid = workload_pids()[0]
    tool = t.dir / "cuda-checkpoint"
    tool.symlink_to(GPU)

    def state():
        return subprocess.run([tool, "--get-state", "--pid", str(pid)], env=environment(t), text=True,
                              capture_output=True, check=False).stdout.strip()
    taken = 1
    for more, moment in (({"CHREK_FAKE_CUDA": "checkpoint=slow:1500"}, "locked"),
                         (t.between("query-ext-files", "hang"), "checkpointed")):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            c = t.start("checkpoint", "kill", "--id", "x", env=environment(t, **more))
            wait_for(moment, lambda c=c, m=moment: state() == m or c.poll() is not None)
            c.send_signal(sig)
            assert c.wait(20) in (-sig, 128 + sig)  # at once, or once the program goes on
            taken += 1
            assert take(p) == want[:taken], (moment, sig)
    assert not t.saved("x")


def test_a_helper_that_is_not_there(t):
    """Without chrek-gpu a program with a GPU is refused with a remedy, and goes on."""
    p = start(t, "no", *workload(1), n=1)
    done = t.chrek("checkpoint", "no", "--id", "no", check=False,
                   env=environment(t) | {"CHREK_GPU": "/no/such/program"})
    assert done.returncode == 5 and "$CHREK_GPU" in done.stderr, done.stderr
    assert len(take(p)) == 2


def test_saved_by_its_user(t):
    """A program that cuda-checkpoint has put aside is saved as it is, and brought back by it."""
    want = expected(t, 3, *workload(1))
    tool = t.dir / "cuda-checkpoint"
    tool.symlink_to(GPU)

    def toggle(state):
        """The one workload that runs, out of that state."""
        for pid in workload_pids():
            asked = subprocess.run([tool, "--get-state", "--pid", pid], env=environment(t), text=True,
                                   capture_output=True, check=False)
            if asked.stdout.strip() == state:
                subprocess.run([tool, "--toggle", "--pid", pid], env=environment(t), check=True)
                return True
        return False
    p = start(t, "own", *workload(1))
    assert toggle("running")
    t.chrek("checkpoint", "own", "--id", "own", "--stop", env=environment(t))
    p.wait(60)
    assert "gpu" not in t.json("inspect", "own")
    again = restore(t, "own", t.env)
    again.stdin.write(b"\n")
    again.stdin.flush()
    wait_for("the box", lambda: [b for b in t.json("status")["boxes"] if b["name"] == "own"])
    assert steps(again) == []
    wait_for("the toggle", lambda: toggle("checkpointed"))
    wait_for("a step", lambda: steps(again))
    assert steps(again) == [want[2]]


def test_no_gpu_no_cost(t):
    """A program without CUDA needs neither helper nor driver, and has no GPU steps."""
    t.start("run", "--name", "plain", "--ready", "after:3600", "--", "sleep", "1000")
    wait_for("the box", lambda: "plain" in t.chrek("status").stdout)
    done = t.chrek("checkpoint", "plain", "--id", "plain", "--json",
                   env=dict(t.env, CHREK_GPU="/no/such/program"))
    assert not [step for step in json.loads(done.stdout)["steps_ns"] if "gpu" in step]
    assert "gpu" not in t.json("inspect", "plain")


# As the Standalone guide has it: no word of chrek in it.
SEED_WORKER = """
import os, sys, time
from subprocess import PIPE, Popen
ready, signal = os.environ['DYN_CHECKPOINT_READY_FILE'], os.environ['DYN_CHECKPOINT_SIGNAL_FILE']
marker = os.environ['DYN_RESTORE_MARKER_FILE']
engine = Popen(sys.argv[1:], stdin=PIPE, stdout=PIPE, text=True)
engine.stdout.readline()
def infer():
    engine.stdin.write(chr(10)); engine.stdin.flush()
    print(engine.stdout.readline().strip(), flush=True)
infer()
with open(ready, 'w') as f:
    f.write('ready')
print('CHECKPOINT_READY: waiting', flush=True)
while True:
    if os.path.exists(marker):
        break
    if os.path.exists(signal):
        sys.exit(0)
    time.sleep(0.2)
print('registered', flush=True)
for _ in range(2):
    infer()
time.sleep(1000)
"""


def test_a_worker_of_the_standalone_guide(t):
    """An unchanged worker in containers: restored with its GPU, and cold where the GPU is another."""
    want = expected(t, 3, *workload(2))
    env = settings(t, **{k: v for k, v in environment(t).items() if k in ("LD_LIBRARY_PATH", "CHREK_GPU")},
                   DYN_CHECKPOINT_READY_FILE=str(t.dir / "ready"),
                   DYN_CHECKPOINT_SIGNAL_FILE=str(t.dir / "signal"))
    command = ("python3", "-c", SEED_WORKER, *workload(2))
    job = container(t, "python3", "-c", INIT, *command, env=env, name="job")
    wait_for("the worker", lambda: "CHECKPOINT_READY" in job.text() or job.poll() is not None)
    assert steps(job) == want[:1], job.text()

    def host_pid():
        for d in os.listdir("/proc"):
            try:
                words = pathlib.Path("/proc", d, "cmdline").read_bytes().split(b"\0") if d.isdigit() else []
            except OSError:
                continue
            if len(words) > 3 and b"DYN_RESTORE_MARKER_FILE" in words[2] and str(FAKES).encode() in words[3]:
                return int(d)
        return None
    t.chrek("checkpoint", "--stop", "--id", "abc123", wait_for("its PID", host_pid), env=env)
    job.kill()
    job.wait()
    pod = container(t, ENTRYPOINT, *command, env=env, name="pod")
    wait_for("the worker", lambda: len(steps(pod)) == 2 or pod.poll() is not None)
    assert steps(pod) == want[1:] and "registered" in pod.text(), pod.text()
    pod.kill()
    pod.wait()
    for path in ("marker", "ready"):
        (t.dir / path).unlink()
    cold = container(t, ENTRYPOINT, *command, name="cold",
                     env=dict(env, CHREK_FAKE_GPUS=f"{A},Other GPU,8192"))
    wait_for("the worker", lambda: "CHECKPOINT_READY" in cold.text() or cold.poll() is not None)
    assert "Falling back to cold start" in cold.text() and "Other GPU" in cold.text(), cold.text()
    assert steps(cold) == want[:1] and "registered" not in cold.text()
    cold.kill()
    cold.wait()
