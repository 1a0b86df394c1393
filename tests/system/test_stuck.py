"""A CRIU that hangs, dies or is interrupted: what it held goes on, and nothing is left."""

import http.server
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

from lib import census, processes_of, program as installed, wait_for

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
        self.process.wait(60)


def children(pid):
    try:
        return [int(c) for c in
                pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_criu(pid):
    try:
        return b"\0swrk\0" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def state(pid):
    try:
        return pathlib.Path("/proc", str(pid), "stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return "gone"


def criu_of(parent):
    """The CRIU that is a child of that process, 0 while there is none."""
    return next((c for c in children(parent) if is_criu(c)), 0)


def is_late(t):
    """Whether CRIU has said, or is about to say, that its images are written."""
    logs = list(t.store.glob("x.tmp-*/dump.log"))
    return not logs or b"post-dump" in logs[0].read_bytes()


def stop_criu_in_a_dump(t, program, *options, also=()):
    """Begin a checkpoint, and stop its CRIU while the program is frozen; chrek and CRIU's PID."""
    for _ in range(50):
        p = t.start("checkpoint", "--format", "plain", "--replace", "--id", "x", *options, program.pid)
        criu = wait_for("CRIU", lambda q=p: criu_of(q.pid) or q.poll() is not None)
        while p.poll() is None:
            if any(state(pid) != "t" for pid in (program.pid, *also)):
                continue
            os.kill(criu, signal.SIGSTOP)
            wait_for("a CRIU that stands", lambda: state(criu) in "TZgone")
            frozen = all(state(pid) == "t" for pid in (program.pid, *also))
            if state(criu) == "T" and frozen and not is_late(t):
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


class Silent(http.server.BaseHTTPRequestHandler):
    """Object storage that takes what is small, and never answers who brings a pack."""

    protocol_version = "HTTP/1.1"

    def answer(self, code, body=b"", name="", data=True):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{name or code}"')
        self.end_headers()
        if data:
            self.wfile.write(body)

    def do_GET(self):
        name = self.path.split("?")[0]
        if "list-type=" in self.path:
            self.answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        elif name in self.server.objects:
            self.answer(200, self.server.objects[name], str(len(name)), self.command == "GET")
        else:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>", data=self.command == "GET")

    do_HEAD = do_GET

    def do_PUT(self):
        if "/packs/" in self.path:
            self.server.hung.set()
            self.server.over.wait(600)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.objects[self.path.split("?")[0]] = body
        self.answer(200, name="1")

    def do_POST(self):
        self.do_PUT()

    def do_DELETE(self):
        self.server.objects.pop(self.path.split("?")[0], None)
        self.answer(204)

    def log_message(self, *_):
        pass


def test_a_signal_frees_a_program_whose_store_hangs(t):
    """SIGTERM, SIGINT while memory is copied and the store takes no more of it: the program runs, 128 + signal."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads, server.objects, server.over = True, {}, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    env = dict(t.env, AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", TMPDIR=str(t.dir),
               CHREK_STORE=f"s3://bucket/x?endpoint=http://127.0.0.1:{server.server_address[1]}&region=a")
    code = "import os\nmore = os.urandom(512 << 20)\n" + COUNTER
    with Program(t, code) as program:
        for sig in (signal.SIGTERM, signal.SIGINT):
            server.hung = threading.Event()
            p = t.start("checkpoint", "--stop", "--compression", "raw", "--id", "x", program.pid, env=env)
            wait_for("a store that hangs", lambda: server.hung.is_set() or p.poll() is not None)
            assert p.poll() is None, p.text()
            wait_for("a program that stands still", lambda: stands_still(program))
            p.send_signal(sig)
            assert p.wait(60) == 128 + sig, p.text()
            program.goes_on()
    server.over.set()
    server.shutdown()


def stands_still(program):
    seen = program.ticks()
    time.sleep(0.5)
    return program.ticks() == seen


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
            tree = [program.pid, *children(program.pid)]
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


def test_two_checkpoints_of_one_process_at_once(t):
    """The second is told who saves it already; of a process below it is said, too."""
    code = "import os, time\nprint(os.fork(), flush=True)\n" + COUNTER
    with Program(t, code) as program:
        child = int(program.log.read_text().split()[0]) or int(program.log.read_text().split()[1])
        p, criu = stop_criu_in_a_dump(t, program, also=[child])
        second = t.chrek("checkpoint", "--id", "y", program.pid, check=False)
        assert second.returncode == 1, second
        assert f"is just being saved by process {p.pid}" in second.stderr, second
        assert "hint: wait until that is done" in second.stderr, second
        below = t.chrek("checkpoint", "--id", "z", child, check=False)
        assert below.returncode == 1 and "is just being saved, by CRIU" in below.stderr, below
        os.kill(criu, signal.SIGCONT)
        assert p.wait(60) == 0, p.text()
        t.chrek("checkpoint", "--id", "y", program.pid)
        os.kill(child, signal.SIGKILL)


def test_options_of_other_peoples_criu(t):
    """~/.criu/default.conf is for who runs criu by hand: it changes nothing for us."""
    (t.dir / ".criu").mkdir()
    (t.dir / ".criu/default.conf").write_text("action-script /bin/false\n")
    with Program(t) as program:
        done = t.chrek("checkpoint", "--id", "x", program.pid, check=False,
                       env=dict(t.env, HOME=str(t.dir)))
        assert done.returncode == 0, done


def test_more_pipes_than_criu_has_room_for(t):
    """doctor and checkpoint know of it before anything is frozen."""
    code = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, [resource.getrlimit(resource.RLIMIT_NOFILE)[1]] * 2)
for _ in range(int(os.environ["PIPES"])):
    os.close(os.pipe()[1])
""" + COUNTER
    for pipes, code_of in (("1025", 5), ("1000", 0)):
        t.env["PIPES"] = pipes
        with Program(t, code) as program:
            said = t.chrek("doctor", program.pid, check=False)
            assert ("read from 1025 pipes" in said.stdout) == (code_of != 0), said
            done = t.chrek("checkpoint", "--id", f"x{pipes}", program.pid, check=False)
            assert done.returncode == code_of, done
            assert code_of == 0 or "1024" in done.stderr and "fewer workers" in done.stderr, done


def stop_criu(t, p):
    """Stop the CRIU that works for a program under test as soon as it is there; its PID, or 0."""
    def look():
        found = [pid for pid, line in processes_of(str(t.dir).encode()).items() if b"\0swrk\0" in line]
        return found or p.poll() is not None
    found = wait_for("CRIU", look)
    if found is True:
        return 0
    os.kill(found[0], signal.SIGSTOP)
    return found[0]


def test_an_interrupted_restore_leaves_nothing(t):
    """Ctrl-C and the like while CRIU hangs in a restore: 128 + signal, no program, no cold start."""
    p = t.run_until_saved("c", "after:0.3", sys.executable, "-c", COUNTER,
                          options=["--stop", "--format", "plain"])
    assert p.wait(60) == 0, p.text()
    for sig in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for command in (("restore", "c"), ("run", "--name", "c", "--", "echo", "begun")):
            p = t.start(*command)
            criu = stop_criu(t, p)
            assert criu, p.text()
            p.send_signal(sig)
            assert p.wait(60) == 128 + sig, (p.returncode, p.text())
            assert f"interrupted by {sig.name}" in p.text() and "begun" not in p.text(), p.text()
            wait_for("the end of all", lambda: not any(census(t).values()), 30)
    again = t.start("restore", "c")
    wait_for("ticks", lambda: "tick" in again.text())
    t.stop(again)


def stop_criu_of_a_box(t):
    """Run a box, and stop the CRIU of its checkpoint while the program is frozen; chrek, CRIU's PID."""
    python = sys.executable.encode()
    for _ in range(20):
        p = t.start("run", "--name", "c", "--ready", "after:0.5", "--format", "plain", "--",
                    sys.executable, "-c", COUNTER)
        program = wait_for("the program", lambda: [
            pid for pid, line in processes_of(str(t.dir).encode()).items() if line.startswith(python)])[0]
        criu = 0
        while not t.saved("c") and not (criu and state(program) == "t"):
            criu = next((c for worker in children(p.pid) for c in children(worker) if is_criu(c)), 0)
        if criu:
            os.kill(criu, signal.SIGSTOP)
            wait_for("a CRIU that stands", lambda c=criu: state(c) in "TZgone")
        if criu and state(criu) == "T" and state(program) == "t":
            return p, criu
        t.stop(p, signal.SIGKILL)
        wait_for("the end of all", lambda: not any(census(t).values()))
        t.chrek("delete", "c", check=False)
    raise AssertionError("no dump was slow enough")


def test_a_box_that_is_asked_to_end_while_its_checkpoint_hangs(t):
    """SIGTERM to `chrek run`: after some seconds the checkpoint is given up, and the program ends."""
    p, criu = stop_criu_of_a_box(t)
    assert t.stop(p) == -signal.SIGTERM, p.text()
    assert state(criu) == "gone" and not t.saved("c"), p.text()


def test_a_box_whose_supervisor_is_killed_while_its_checkpoint_hangs(t):
    """kill -9 of `chrek run`: worker, CRIU and the box end with it."""
    p, _ = stop_criu_of_a_box(t)
    t.stop(p, signal.SIGKILL)
    wait_for("the end of all", lambda: not processes_of(str(t.dir).encode()))


def test_a_criu_that_is_none(t):
    """Whatever is named in CRIU's place: what is wrong with it, and how to name another."""
    (t.dir / "text").write_text("no program")
    (t.dir / "text").chmod(0o755)
    with Program(t) as program:
        for criu, code, why in (("/no/such", 3, "No such file"), (str(t.dir), 8, "Permission denied"),
                                ("/bin/true", 1, " CRIU"),
                                (str(t.dir / "text"), 1, "Exec format error"),
                                ("/dev/null", 8, "Permission denied")):
            for options, env in (((), dict(t.env, CHREK_CRIU=criu)), (("--criu", criu), t.env)):
                done = t.chrek("checkpoint", "--id", "x", *options, program.pid, check=False, env=env)
                assert done.returncode == code and why in done.stderr, (criu, options, done)
                assert "4.2 or newer" in done.stderr.split("hint: ")[1], done
        program.goes_on()


def test_a_low_limit_of_open_files(t):
    """ulimit -n 64: it works where the limit may be raised, or says what to do."""
    with Program(t) as program:
        soft = t.limited("ulimit -Sn 64", "checkpoint", "--id", "soft", program.pid)
        assert soft.returncode == 0, soft
        hard = t.limited("ulimit -n 64", "checkpoint", "--id", "hard", program.pid)
        assert hard.returncode == 0 or (hard.returncode == 1 and "hint: raise it: ulimit -n 1024" in
                                        hard.stderr), hard
        program.goes_on()


def test_gc_tells_of_what_it_leaves(t):
    """What a maker that has just been killed has left stays for a while, and gc says so."""
    with Program(t) as program:
        t.chrek("checkpoint", "--id", "y", program.pid)
        p, criu = stop_criu_in_a_dump(t, program)
        p.kill()
        p.wait(60)
        wait_for("CRIU's end", lambda: state(criu) in ("gone", "Z"), 60)
        left, = t.store.glob("x.tmp-*")
        os.utime(left, (time.time() + 60,) * 2)  # it stays young
        done = t.chrek("gc")
        assert "1 unfinished" in done.stdout and "next gc" in done.stdout, done
        assert t.json("gc")["unfinished_left"] == 1
        os.utime(left, (0, 0))
        assert "unfinished" not in t.chrek("gc").stdout and not left.exists()


def test_a_criu_that_dies_leaves_no_connection_blocked(t):
    """--tcp-established, and CRIU dies with the connections blocked: they go on."""
    installed("iptables")
    env = dict(t.env, **t.between("post-dump", "die"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = f"import socket\ns = socket.create_connection({server.getsockname()})\n" + COUNTER.replace(
            "    print", "    s.sendall(b'x')\n    print")
        with Program(t, code) as p:
            connection = server.accept()[0]
            done = t.chrek("checkpoint", "--tcp-established", "--id", "x", p.pid, check=False, env=env)
            assert done.returncode == 1 and "CRIU has ended" in done.stderr, done
            assert "blocked" not in done.stderr, done
            connection.settimeout(60)
            sent = p.ticks()  # lines of what it has sent; as much must come, and more
            got = 0
            while got < sent + 20:
                got += len(connection.recv(4096))
            connection.close()


def test_memory_that_was_copied_of_a_running_program_is_not_stored(t):
    """--stop, and CRIU dies before memory is copied: no checkpoint, and the program goes on."""
    env = dict(t.env, **t.between("post-dump", "die"))
    with Program(t, TREE) as program:
        for stop in ((), ("--stop",)):
            done = t.chrek("checkpoint", *stop, "--id", "x", program.pid, check=False, env=env)
            assert done.returncode == 1 and "CRIU has ended while memory was copied" in done.stderr, done
            assert not t.saved("x")
            program.goes_on()
        for child in children(program.pid):
            assert "CRIUMFD" not in maps(child)
            os.kill(child, signal.SIGKILL)
