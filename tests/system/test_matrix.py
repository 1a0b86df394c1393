"""Each real workload in each situation: beside its original, twice, after it, without a file."""

import ctypes
import os
import re
import signal
import sys
import threading
import urllib.request

from lib import WORKLOADS, program, wait_for
from test_fidelity import Terminal
from test_workloads import Redis, built

PORT = 8080
KEEP_OPEN = ("sh", "-c", 'exec 9<"$0"; exec "$@"')  # the file whose loss the program must notice


def in_network_of(pid, function):
    """function() in the network namespace of a process; sockets made there stay there."""
    result = []

    def body():
        libc = ctypes.CDLL(None, use_errno=True)
        with open(f"/proc/{pid}/ns/net", "rb") as ns:
            if libc.setns(ns.fileno(), 0x40000000) != 0:
                return
        try:
            result.append(function())
        except OSError:
            pass

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return result[0] if result else None


def get(pid, path):
    def ask():
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=10) as answer:
            return answer.read().decode()
    return in_network_of(pid, ask)


class Http:
    """A service that counts requests and has a checksum of its memory."""

    def __init__(self, *argv, options=()):
        self.argv, self.options = argv, ("--net", "private", *options)

    def command(self, _):
        return self.argv

    def state(self, _, box, __):
        return wait_for("the service", lambda: get(box["init_pid"], "/sum"))


class Database:
    """redis-server with keys; a client is connected when it is saved."""

    options = ("--net", "private")
    client = None

    def command(self, t):
        return (program("redis-server"), "--port", PORT, "--save", "", "--appendonly", "no", "--dir",
                t.dir)

    def connect(self, box):
        return in_network_of(box["init_pid"], lambda: Redis(PORT))

    def fill(self, box):
        self.client = wait_for("redis", lambda: self.connect(box))
        for i in range(500):
            assert self.client.do("SET", f"key:{i}", f"value {i}") == "+OK"

    def state(self, _, box, __):
        if not self.client:
            self.fill(box)
        r = wait_for("redis", lambda: self.connect(box))
        state = r.do("DBSIZE"), r.do("DEBUG", "DIGEST"), r.do("GET", "key:123")
        r.close()
        return state


class Printing:
    """A program that tells its state in its output, again and again."""

    def __init__(self, command, pattern, options=()):
        self.make, self.pattern, self.options = command, pattern, options

    def command(self, t):
        return self.make(t)

    def state(self, _, __, p):
        """What two new lines agree on."""
        def lines():
            return re.findall(self.pattern, p.text(), re.M)
        seen = len(lines())
        wait_for("output", lambda: len(lines()) > seen + 1 or p.poll() is not None)
        assert p.poll() is None and "bad" not in p.text(), p.text()
        assert lines()[-1] == lines()[-2], lines()
        return lines()[-1]


def box_of(t, name):
    """The living box of that name once its program runs, or None."""
    boxes = t.json("status")["boxes"]
    return next((b for b in boxes if b["name"] == name and b["pid_in_box"]), None)


def began(t, p, name):
    wait_for(f"box {name}", lambda: box_of(t, name) or p.poll() is not None)
    assert p.poll() is None, p.text()
    return box_of(t, name)


def lose_a_file(t, data, name):
    """Without a file that it has open: an error that names it, and the original command instead."""
    os.rename(data, f"{data}.away")
    done = t.chrek("restore", name, check=False)
    assert done.returncode == 125 and "not there any more" in done.stderr, done.stderr
    assert data.name in done.stderr, done.stderr
    done = t.chrek("run", "--name", name, "--ready", "never", "--", "echo", "cold", "start")
    assert done.stdout == "cold start\n" and "Falling back to cold start" in done.stderr, done.stderr
    os.rename(f"{data}.away", data)


def matrix(t, workload, beside=True):
    """Save once; restore beside the original, twice; after it; without a file; and after that.

    beside: two copies can live at once; False: they share a lock, and the second one is refused."""
    data = t.dir / "data"
    data.write_text("needed")
    original = t.start("run", "--name", "w", "--ready", "never", *workload.options, "--", *KEEP_OPEN,
                       data, *workload.command(t))
    box = began(t, original, "w")
    before = workload.state(t, box, original)
    t.chrek("checkpoint", "w", timeout=120)
    assert workload.state(t, box, original) == before, "the checkpoint has changed it"
    if beside:
        copies = [t.start("restore", "--name", f"copy{i}", "w") for i in range(2)]
        for i, p in enumerate(copies):
            copy = began(t, p, f"copy{i}")
            assert copy["pid_in_box"] == box["pid_in_box"], "it has the PID that it knows"
            assert workload.state(t, copy, p) == before, "beside the original"
        for p in copies:
            t.stop(p, signal.SIGKILL)
        assert workload.state(t, box, original) == before, "the original has noticed its copies"
    else:
        done = t.chrek("restore", "--name", "copy", "w", check=False)
        assert done.returncode == 125 and "lock" in done.stderr, done.stderr
    t.stop(original, signal.SIGKILL)
    lose_a_file(t, data, "w")
    again = t.start("restore", "w")
    assert workload.state(t, began(t, again, "w"), again) == before, "after the original"
    t.stop(again, signal.SIGKILL)


def test_python(t):
    """A Python service of 100 MB with threads and a child pool, in every situation."""
    matrix(t, Http(sys.executable, WORKLOADS / "service.py", PORT, 100))


def test_node(t):
    """node, in every situation."""
    matrix(t, Http(program("node", "nodejs"), WORKLOADS / "service.js", PORT,
                   options=["--no-io-uring"]))


def test_jvm(t):
    """A JVM, in every situation."""
    matrix(t, Http(program("java"), "-Xmx256m", "-XX:-UsePerfData", WORKLOADS / "Service.java", PORT))


def test_redis(t):
    """redis with keys and a connected client, in every situation."""
    matrix(t, Database())


def test_other_user(t):
    """A program of another user, in every situation."""
    script = "import os, time\n" \
             "while True: print('id', os.getuid(), os.getgid(), os.getgroups(), flush=True); " \
             "time.sleep(0.05)"
    os.chmod(t.dir, 0o755)
    t.env["HOME"] = "/"
    matrix(t, Printing(lambda _: (program("setpriv"), "--reuid", "65534", "--regid", "65534", "--groups",
                                  "4,24", "/usr/bin/python3", "-c", script), r"^id .*$"))


def test_zoo(t):
    """Pipes, sockets, shared memory, IPC, timers, locks ...: all but a second holder of its locks."""
    matrix(t, Printing(lambda t: (built(t, "zoo.c"), t.dir), r"^round \d+ (ok)$"), beside=False)


def test_pipeline(t):
    """A shell pipeline in mid-work: every copy comes to the same total."""
    data = t.dir / "data"
    data.write_text("needed")
    work = "i=0; while [ $i -lt 300 ]; do i=$((i+1)); echo $i; sleep 0.01; done"
    pipeline = f"( {work} ) | while read n; do echo $n; done | awk '{{ s += $1 }} END {{ print s }}'"
    original = t.run_until_saved("w", "after:0.7", *KEEP_OPEN, data, "sh", "-c", pipeline)
    copies = [t.start("restore", "--name", f"copy{i}", "w") for i in range(2)]
    for p in (original, *copies):
        assert p.wait(60) == 0 and "45150\n" in p.text(), p.text()
    lose_a_file(t, data, "w")
    assert t.chrek("restore", "w").stdout == "45150\n"


def test_terminal(t):
    """A program under a pty: every copy has a terminal of its own, with what was typed before."""
    data = t.dir / "data"
    data.write_text("needed")
    script = "import os, tty\n" \
             "tty.setraw(0); typed = b''; os.write(1, b'ready')\n" \
             "while b'q' not in typed:\n" \
             "    typed += os.read(0, 1); os.write(1, b'<' + typed + b'>')\n"
    original = Terminal(t, "run", "--name", "w", "--ready", "never", "--", *KEEP_OPEN, data,
                        sys.executable, "-c", script)
    original.read_until("ready")
    original.type("ab")
    original.read_until("<ab>")
    t.chrek("checkpoint", "w")
    copies = [Terminal(t, "restore", "--name", f"copy{i}", "w") for i in range(2)]
    for key, copy in zip("xy", copies):
        copy.type(key)
        copy.read_until(f"<ab{key}>")
    original.type("z")
    original.read_until("<abz>")
    for terminal in (original, *copies):
        terminal.type("q")
        assert os.waitstatus_to_exitcode(terminal.wait()) == 0, terminal.text
    lose_a_file(t, data, "w")
    again = Terminal(t, "restore", "w")
    again.type("q")
    again.read_until("<abq>")
    assert os.waitstatus_to_exitcode(again.wait()) == 0, again.text
