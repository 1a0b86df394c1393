"""Real programs, each restored with the state it was saved with, twice."""

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time

from lib import WORKLOADS, free_port, http, http_or_none, program, wait_for
from test_fidelity import Terminal


def built(t, source):
    """Compile one of our C workloads."""
    out = t.dir / source.removesuffix(".c")
    subprocess.run([program("cc", "gcc"), "-O1", "-o", out, WORKLOADS / source, "-pthread"], check=True)
    return str(out)


@contextlib.contextmanager
def restored(t, name, ready, *options):
    p = t.start("restore", *options, name)
    try:
        wait_for("the restored program", lambda: ready() or p.poll() is not None)
        assert p.poll() is None, p.text()
        yield p
    finally:
        t.stop(p)


def gone(port):
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) != 0


def web(t, argv, name="web", options=()):
    """An HTTP service: requests are counted on through checkpoint and restores."""
    port = free_port()
    p = t.run_until_saved(name, f"http:{port}/", *[str(a).replace("PORT", str(port)) for a in argv],
                          options=["--stop", *options])
    assert p.wait(60) == 0, p.text()
    wait_for("the port to be free", lambda: gone(port))
    return port


def test_python_service(t):
    """A Python service: 200 MB, threads, a pool of children; state goes on, twice."""
    port = web(t, ["python3", WORKLOADS / "service.py", "PORT", 200])
    sums = set()
    for _ in range(2):
        with restored(t, "web", lambda: http_or_none(port)):
            count = int(http(port))
            assert count in (3, 4), count  # the ready probe was the first, our polling the rest
            sums.add(http(port, "/sum"))
            assert http(port, "/pool") == "(4, 1) (9, 1) (16, 1)"
            assert int(http(port)) == count + 3
        wait_for("the port to be free", lambda: gone(port))
    assert len(sums) == 1
    meta = t.json("ls")[0]
    assert meta["memory_bytes"] > 200 << 20


def test_node(t):
    """A node service."""
    node = program("node", "nodejs")
    port = web(t, [node, WORKLOADS / "service.js", "PORT"], options=["--no-io-uring"])
    seen = set()
    for _ in range(2):
        with restored(t, "web", lambda: http_or_none(port)):
            assert int(http(port)) in (3, 4)
            before = int(http(port, "/ticks"))
            wait_for("ticks", lambda b=before: int(http(port, "/ticks")) > b)
            seen.add(http(port, "/sum"))
        wait_for("the port to be free", lambda: gone(port))
    assert len(seen) == 1


def test_jvm(t):
    """A Java service."""
    java = program("java")
    port = web(t, [java, "-Xmx256m", "-XX:-UsePerfData", WORKLOADS / "Service.java", "PORT"])
    seen = set()
    for _ in range(2):
        with restored(t, "web", lambda: http_or_none(port)):
            assert int(http(port)) in (3, 4)
            seen.add(http(port, "/sum"))
        wait_for("the port to be free", lambda: gone(port))
    assert len(seen) == 1


class Redis:
    """A client that speaks just enough."""

    def __init__(self, port):
        self.s = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.f = self.s.makefile("rb")

    def do(self, *words):
        self.s.sendall(b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%s\r\n" % (len(w), w) for w in (str(w).encode() for w in words)))
        line = self.f.readline()
        if line[:1] == b"$" and line != b"$-1\r\n":
            return self.f.read(int(line[1:]) + 2)[:-2].decode()
        return line.strip().decode()

    def close(self):
        self.f.close()
        self.s.close()


def alive_redis(port):
    try:
        r = Redis(port)
        answer = r.do("PING")
        r.close()
        return answer == "+PONG"
    except OSError:
        return False


def test_redis(t):
    """redis-server with keys and a connected client."""
    redis = program("redis-server")
    port = free_port()
    p = t.start("run", "--name", "redis", "--ready", "never", "--", redis, "--port", port, "--save",
                "", "--appendonly", "no", "--dir", t.dir)
    wait_for("redis", lambda: alive_redis(port))
    client = Redis(port)
    for i in range(2000):
        client.do("SET", f"key:{i}", f"value {i}")
    digest = client.do("DEBUG", "DIGEST")
    size = client.do("DBSIZE")
    t.chrek("checkpoint", "redis")
    assert client.do("PING") == "+PONG", "the original's client stays connected"
    assert client.do("SET", "after", "the checkpoint") == "+OK"
    client.close()
    t.stop(p)
    for _ in range(2):
        with restored(t, "redis", lambda: alive_redis(port)):
            r = Redis(port)
            assert r.do("GET", "key:1234") == "value 1234" and r.do("GET", "after") == "$-1"
            assert r.do("DBSIZE") == size and r.do("DEBUG", "DIGEST") == digest
            r.close()
        wait_for("the port to be free", lambda: gone(port))


def test_pipeline(t):
    """A shell pipeline in mid-work: its total is right, whoever finishes it."""
    work = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo $i; sleep 0.005; done"
    pipeline = f"( {work} ) | while read n; do echo $n; done | awk '{{ s += $1 }} END {{ print s }}'"
    p = t.run_until_saved("sum", "after:0.7", "sh", "-c", pipeline)
    assert p.wait(60) == 0 and "80200\n" in p.text(), p.text()
    for _ in range(2):
        again = t.start("restore", "--quiet", "sum")
        assert again.wait(60) == 0 and again.text() == "80200\n", again.text()


def zoo_rounds(p):
    return [int(n) for n in re.findall(r"^round (\d+) ok$", p.text(), re.M)]


def test_zoo(t):
    """Pipes, sockets, shared memory, memfd, IPC, semaphores, timers, epoll, inotify, locks, ghosts."""
    p = t.run_until_saved("zoo", "log:^round 3 ok", built(t, "zoo.c"), t.dir, options=["--stop"])
    assert p.wait(60) == 0, p.text()
    last = zoo_rounds(p)[-1]
    for _ in range(2):
        again = t.start("restore", "zoo")
        wait_for("rounds", lambda p=again: len(zoo_rounds(p)) > 4 or p.poll() is not None)
        assert again.poll() is None and "bad" not in again.text(), again.text()
        assert zoo_rounds(again)[0] == last + 1
        t.stop(again)


def test_zoo_goes_on(t):
    """The same tree left running, checkpointed three times, restored from each."""
    p = t.start("run", "--name", "zoo", "--ready", "never", "--", built(t, "zoo.c"), t.dir)
    wait_for("rounds", lambda: len(zoo_rounds(p)) > 1)
    for i in range(3):
        t.chrek("checkpoint", "--id", f"z{i}", "zoo")
        seen = len(zoo_rounds(p))
        wait_for("more rounds", lambda n=seen: len(zoo_rounds(p)) > n + 1 or p.poll() is not None)
        assert p.poll() is None, p.text()
    t.stop(p)
    for i in range(3):
        again = t.start("restore", f"z{i}")
        wait_for("rounds", lambda p=again: len(zoo_rounds(p)) > 1 or p.poll() is not None)
        assert again.poll() is None, again.text()
        t.stop(again)


def test_other_user(t):
    """A program of another user, with its groups and without our rights."""
    setpriv = program("setpriv")
    os.chmod(t.dir, 0o755)
    script = "import os, time\n" \
             "while True: print('id', os.getuid(), os.getgid(), os.getgroups(), flush=True); time.sleep(0.1)"
    p = t.run_until_saved("user", "after:0.5", setpriv, "--reuid", "65534", "--regid", "65534",
                          "--groups", "4,24", "--no-new-privs", "/usr/bin/python3", "-c", script,
                          options=["--stop"], env=dict(t.env, HOME="/"))
    assert p.wait(60) == 0, p.text()
    for _ in range(2):
        again = t.start("restore", "user")
        wait_for("output", lambda p=again: "id " in p.text() or p.poll() is not None)
        assert "id 65534 65534 [4, 24]" in again.text(), again.text()
        t.stop(again)


def test_terminal_program(t):
    """A program on a terminal: raw mode, window size and screen state survive, on a new terminal."""
    script = t.dir / "screen.py"
    script.write_text(
        "import os, sys, termios, tty\n"
        "tty.setraw(0)\n"
        "typed = b''\n"
        "os.write(1, b'ready\\r\\n')\n"
        "while True:\n"
        "    c = os.read(0, 1)\n"
        "    if c == b'q': break\n"
        "    typed += c\n"
        "    size = os.get_terminal_size(0)\n"
        "    os.write(1, b'<%s %dx%d>' % (typed, size.columns, size.lines))\n"
        "os.write(1, b'bye\\r\\n')\n")
    first = Terminal(t, "run", "--name", "tty", "--ready", "log:ready", "--", sys.executable, script)
    first.read_until("ready")
    first.read_until("saved")
    first.type("abc")
    first.read_until("<abc 99x33>")
    t.chrek("checkpoint", "--id", "typed", "tty")
    first.type("q")
    assert os.waitstatus_to_exitcode(first.wait()) == 0
    for _ in range(2):
        again = Terminal(t, "restore", "typed", rows=20, columns=70)
        again.type("d")
        again.read_until("<abcd ")
        again.read_until("70x20>")
        again.type("q")
        assert os.waitstatus_to_exitcode(again.wait()) == 0 and "bye" in again.text


TCP = """
import os, select, socket, sys
server = socket.create_server(('127.0.0.1', int(sys.argv[1])))
inner_a = socket.create_connection(server.getsockname()); inner_b = server.accept()[0]
inner_a.sendall(b'inner')
clients = []
print('ready', flush=True)
while True:
    for s in select.select([server, *clients], [], [])[0]:
        if s is server:
            clients.append(server.accept()[0])
            continue
        try:
            data = s.recv(100)
        except OSError as e:
            data = b''
        if not data:
            clients.remove(s); s.close(); print('closed', flush=True)
        elif data == b'inner?':
            inner_b.settimeout(3)
            try:
                s.sendall(inner_b.recv(5)); inner_a.sendall(b'inner')
            except OSError as e:
                s.sendall(repr(e).encode())
        else:
            s.sendall(data.upper())
"""


def ask(s, data):
    s.sendall(data)
    assert select.select([s], [], [], 5)[0], "no answer"
    return s.recv(100)


def test_tcp_listener_and_outside(t):
    """Listeners come back; connections to the outside are closed cleanly by default."""
    port = free_port()
    p = t.start("run", "--name", "tcp", "--ready", "never", "--", "python3", "-c", TCP, port)
    wait_for("start", lambda: "ready" in p.text())
    outside = socket.create_connection(("127.0.0.1", port))
    assert ask(outside, b"abc") == b"ABC"
    t.chrek("checkpoint", "tcp")
    assert ask(outside, b"still") == b"STILL", "the original keeps its connection"
    outside.close()
    t.stop(p)
    for _ in range(2):
        wait_for("the port to be free", lambda: gone(port))
        again = t.start("restore", "tcp")
        wait_for("the listener", lambda: not gone(port))
        with socket.create_connection(("127.0.0.1", port)) as s:
            assert ask(s, b"abc") == b"ABC"
        wait_for("the old connection's end", lambda p=again: "closed" in p.text())
        t.stop(again)


def test_tcp_established(t):
    """With --tcp-established connections inside the tree and to the outside survive."""
    port = free_port()
    p = t.start("run", "--name", "tcp", "--net", "private", "--ready", "never", "--", "python3", "-c",
                "import threading, socket, time, sys\n"
                "s = socket.create_server(('127.0.0.1', 0))\n"
                "a = socket.create_connection(s.getsockname()); b = s.accept()[0]\n"
                "n = 0\n"
                "while True:\n"
                "    n += 1; a.sendall(b'%d\\n' % n); print('round', n, b.recv(99), flush=True)\n"
                "    time.sleep(0.1)\n", port)
    wait_for("start", lambda: "round 2" in p.text())
    t.chrek("checkpoint", "--tcp-established", "--stop", "tcp")
    assert p.wait(30) == 0
    last = int(re.findall(r"round (\d+)", p.text())[-1])
    for _ in range(2):
        again = t.start("restore", "--tcp-established", "tcp")
        wait_for("rounds", lambda p=again: p.text().count("round") > 2 or p.poll() is not None)
        assert f"round {last + 1} b'{last + 1}\\n'" in again.text(), again.text()
        t.stop(again)


def test_port_taken(t):
    """A port that somebody else has taken: the error says so, and `run` starts cold."""
    port = free_port()
    p = t.run_until_saved("tcp", f"tcp:{port}", "python3", "-c", TCP, port, options=["--stop"])
    assert p.wait(30) == 0
    wait_for("the port to be free", lambda: gone(port))
    with socket.create_server(("127.0.0.1", port)):
        done = t.chrek("restore", "tcp", check=False)
    assert done.returncode == 125 and "is taken" in done.stderr, done.stderr


def test_pid_collision(t):
    """A restore never collides with PIDs of the machine, not even with its own original's."""
    p = t.run_until_saved("pid", "after:0.3", "sh", "-c", "while :; do echo pid $$; sleep 0.1; done")
    pids = [set(), set()]
    again = t.start("restore", "pid")
    for process, seen in zip((p, again), pids):
        wait_for("output", lambda p=process, s=seen: s.update(re.findall(r"^pid (\d+)$", p.text(), re.M))
                 or s or p.poll() is not None)
    assert len(pids[0]) == 1 and pids[0] == pids[1], (pids, again.text())
    t.stop(again)
    t.stop(p)


def test_rounds_without_a_leak(t):
    """100 rounds of checkpoint and restore: no files, mounts, processes or memory are left behind."""
    rounds = int(os.environ.get("CHREK_TEST_ROUNDS", "100"))
    script = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.02; done"
    p = t.start("run", "--name", "r", "--ready", "never", "--", "sh", "-c", script)
    wait_for("start", lambda: "tick" in p.text())

    def shmem_and_slab():
        with open("/proc/meminfo", encoding="utf-8") as f:
            facts = dict(line.split()[:2] for line in f)
        return int(facts["Shmem:"])

    mounts = open("/proc/self/mountinfo", encoding="utf-8").read()
    before = None
    for i in range(rounds):
        t.chrek("checkpoint", "--stop", "--replace", "--id", "r", "r")
        assert p.wait(30) == 0, p.text()
        p = t.start("restore", "r")
        wait_for("ticks", lambda: "tick" in p.text() or p.poll() is not None)
        assert p.poll() is None, p.text()
        if i == 10:
            before = shmem_and_slab()
    assert shmem_and_slab() < before + 16384, "shared memory grows"
    assert open("/proc/self/mountinfo", encoding="utf-8").read().count("chrek") == mounts.count("chrek")
    assert sorted(os.listdir(t.store)) == ["packs", "r"]
    assert len(os.listdir("/run/chrek/boxes")) <= 2
    t.stop(p)
    last = int(p.text().split()[-1])
    assert last > rounds, last
