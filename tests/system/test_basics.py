"""Checkpoint, restore, list, verify, delete; what is refused and why."""

import json
import os
import pathlib
import re
import select
import signal
import socket
import subprocess
import time

from lib import CHREK, Skip, free_port, wait_for

COUNTER = """
import time, sys
n = 0
while True:
    n += 1
    print('tick', n, flush=True)
    time.sleep(0.05)
"""


def ticks(p):
    return [int(n) for n in re.findall(r"^tick (\d+)\n", p.text(), re.M)]  # whole lines only


def saved_counter(t, name="c"):
    p = t.run_until_saved(name, "after:0.4", "python3", "-c", COUNTER, options=["--stop"])
    assert p.wait(30) == 0, p.text()
    return p


def test_run_saves_then_restores(t):
    """The first run is cold and saved; the second goes on where it was saved."""
    first = ticks(saved_counter(t))
    again = t.start("run", "--name", "c", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: len(ticks(again)) > 3)
    assert ticks(again)[0] == first[-1] + 1, (first[-1], ticks(again))
    assert t.stop(again) == -signal.SIGTERM


def test_goes_on_after_a_checkpoint(t):
    """Without --stop the command goes on, and loses nothing of its output."""
    p = t.run_until_saved("c", "after:0.3", "python3", "-c", COUNTER)
    seen = len(ticks(p))
    wait_for("more", lambda: len(ticks(p)) > seen + 5)
    assert ticks(p) == list(range(1, len(ticks(p)) + 1))
    t.stop(p)


def test_a_command_of_several_lines_is_shown_as_one(t):
    """In what runs, and in what is said; its control characters never reach a terminal."""
    script = "import time\nx = '\x1b[31m" + "y" * 200 + "'\nprint('ready', flush=True)\ntime.sleep(1000)"
    report = json.loads(t.chrek("run", "--name", "long", "--ready", "log:ready", "--detach", "--json", "--",
                                "python3", "-c", script).stdout)
    try:
        assert report["name"] == "long" and report["generation"] == 0, report
        line = next(s for s in t.chrek("status").stdout.splitlines() if s.startswith("long "))
        assert "import time?x" in line and line.endswith("...") and "\x1b" not in line, line
        assert len(line) < 140, line
        wait_for("its checkpoint", lambda: t.json("ls"))
    finally:
        os.kill(report["pid"], signal.SIGTERM)
    p = t.start("run", "--name", "long", "--", "true")
    wait_for("the warning", lambda: "another command" in p.text())
    assert "import time?x" in p.text() and "\x1b" not in p.text(), p.text()
    t.stop(p)


def test_a_signal_during_a_freeze_interrupts_what_it_meets(t):
    """Who waits in pause(), sleep() or read() for a Ctrl-C is told of one that came while he stood still."""
    script = ("import signal, sys, time\ndef told(*_): print('told', flush=True)\n"
              "signal.signal(signal.SIGINT, told)\nx = bytearray(b'x' * (32 << 20))\n"
              "print('ready', flush=True)\nwhile True: ")
    for wait in ("signal.pause()", "time.sleep(1000)", "sys.stdin.read(1)"):
        with subprocess.Popen(["python3", "-c", script + wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              start_new_session=True, env=t.env) as p:
            try:
                assert p.stdout.readline() == b"ready\n"
                for _ in range(3):
                    wait_for("the program to wait", lambda: process_state(p.pid) == "S")
                    interrupt_when_stopped(t, p.pid)
                    assert select.select([p.stdout], [], [], 30)[0], wait
                    assert p.stdout.readline() == b"told\n"
            finally:
                p.kill()


def test_who_is_told_to_end_while_he_is_saved_has_ended(t):
    """That is what is said, not how the making of the checkpoint took it: no lack of memory, no CRIU that is killed."""
    script = ("import sys, time\nx = bytearray(b'x' * (64 << 20))\nprint('ready', flush=True)\ntime.sleep(1000)")
    p = t.start("run", "--name", "c", "--ready", "log:ready", "--", "python3", "-c", script, start_new_session=True)
    wait_for("the program", lambda: "ready" in p.text())
    while not list(t.store.glob("c.tmp-*")) and "chrek:" not in p.text():
        continue
    os.killpg(p.pid, signal.SIGINT)  # as Ctrl-C does
    assert p.wait(60) == -signal.SIGINT, p.text()
    assert "saved" in p.text() or "no checkpoint: the command was told to end while it was made" in p.text(), p.text()


def process_state(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def interrupt_when_stopped(t, pid):
    with subprocess.Popen([CHREK, "checkpoint", "-q", "--replace", "--id", "c", str(pid)], env=t.env,
                          stdout=subprocess.DEVNULL) as saving:
        while saving.poll() is None and process_state(pid) != "t":
            continue
        os.kill(pid, signal.SIGINT)
        assert saving.wait(60) == 0


HTTPS_SERVER = """
import http.server, ssl, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if time.monotonic() > good_from and self.path == '/ready' else 503)
        self.end_headers()
    def log_message(self, *args): pass
good_from = time.monotonic() + 1
server = http.server.HTTPServer(('127.0.0.1', %d), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain('pem')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def test_ready_by_https(t):
    """A server with a certificate of its own making is saved once it answers well."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj",
                    "/CN=x", "-keyout", t.dir / "pem", "-out", t.dir / "crt"],
                   check=True, capture_output=True)
    (t.dir / "pem").write_text((t.dir / "pem").read_text() + (t.dir / "crt").read_text())
    port, begun = free_port(), time.monotonic()
    p = t.run_until_saved("c", f"https://localhost:{port}/ready", "python3", "-c", HTTPS_SERVER % port)
    assert time.monotonic() - begun > 1
    t.stop(p)


LATE_SERVER = """
import socket, sys, time
s = socket.socket()
s.bind(('127.0.0.1', int(sys.argv[1])))
s.listen()
print('listening', flush=True)
time.sleep(float(sys.argv[2]))
while True:
    s.accept()[0].close()
    print('accepted', flush=True)
"""


def answers(port):
    """Whether a connection can be made there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    except OSError:
        return False


def test_a_server_that_accepts_late(t):
    """A probe waits at a server that listens but does not accept yet: it is saved once it does."""
    port = free_port()
    p = t.run_until_saved("c", f"tcp:{port}", "python3", "-c", LATE_SERVER, port, 2)
    assert "no checkpoint yet" in p.text() and "accepted" in p.text(), p.text()
    t.stop(p)


def test_connections_that_wait_are_dropped(t):
    """--skip-in-flight saves a server at which a connection waits; without it that is refused."""
    port = free_port()
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", LATE_SERVER, port, 1000)
    wait_for("the server", lambda: "listening" in p.text())
    with socket.create_connection(("127.0.0.1", port)):
        done = t.chrek("checkpoint", "c", check=False)
        assert done.returncode == 1 and "--skip-in-flight" in done.stderr, done.stderr
        assert "tcp-dropped" in t.chrek("doctor", "--skip-in-flight", "c").stdout
        t.chrek("checkpoint", "c", "--stop", "--skip-in-flight")
    again = t.start("restore", "c")
    wait_for("the server", lambda: answers(port))
    t.stop(again)


def test_ready_by_a_command(t):
    """exit-of: runs in the directory of the command."""
    (t.dir / "check.sh").write_text("#!/bin/sh\ntest -e up\n")
    (t.dir / "check.sh").chmod(0o755)
    p = t.run_until_saved("c", "exit-of:./check.sh", "sh", "-c", "touch up; exec sleep 1000")
    t.stop(p)


def test_options_for_criu_come_from_chrek_alone(t):
    """A file of options that the environment names for CRIU runs nothing and stops nothing."""
    script, conf, ran = t.dir / "script", t.dir / "criu.conf", t.dir / "ran"
    script.write_text(f"#!/bin/sh\ntouch {ran}\n")
    script.chmod(0o755)
    conf.write_text(f"action-script {script}\nlazy-pages\n")
    env = dict(t.env, CRIU_CONFIG_FILE=str(conf))
    p = t.run_until_saved("c", "after:0.3", "python3", "-c", COUNTER, env=env)
    again = t.start("restore", "c", env=env)
    wait_for("ticks", lambda: len(ticks(again)) > 2)
    assert not ran.exists()
    t.stop(again)
    t.stop(p)


def test_restores_with_the_original_running(t):
    """A restore beside the living original, and several at the same time."""
    original = t.run_until_saved("c", "after:0.3", "python3", "-c", COUNTER)
    copies = [t.start("restore", "c") for _ in range(4)]
    for p in copies:
        wait_for("ticks", lambda p=p: len(ticks(p)) > 2)
    starts = {ticks(p)[0] for p in copies}
    assert len(starts) == 1, starts
    status = t.json("status")
    assert len([b for b in status["boxes"] if b["checkpoint_id"] == "c"]) == 5, status
    for p in [original, *copies]:
        t.stop(p)


def test_checkpoint_by_name_and_pid(t):
    """`checkpoint NAME` and `checkpoint PID`, with a report for machines."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: ticks(p))
    report = t.json("checkpoint", "--id", "one", "c")
    assert report["id"] == "one" and report["memory_bytes"] > 1 << 20 and report["freeze_ns"] > 0 and report["sync_ns"] > 0
    outside = subprocess.Popen(["python3", "-c", COUNTER], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, start_new_session=True)
    try:
        first = outside.stdout.readline()
        t.chrek("checkpoint", "--id", "two", "--stop", outside.pid)
        assert outside.wait(10) == -signal.SIGKILL
        last = int((first + outside.stdout.read()).split()[-1])
    finally:
        outside.kill()
        outside.stdout.close()
    copy = t.start("restore", "two")
    wait_for("ticks", lambda: ticks(copy))
    assert ticks(copy)[0] == last + 1
    t.stop(copy)
    assert t.chrek("checkpoint", "--stop", "--id", "three", "c")
    assert p.wait(20) == 0, "stopping by a checkpoint is no failure"


def test_any_process(t):
    """A process that chrek has not started: of our session, with a child, /dev/shm of the machine."""
    name = f"chrek-test-{os.getpid()}"
    script = f"import mmap, os\nf = open('/dev/shm/{name}', 'w+b'); f.truncate(4096)\n" \
             "m = mmap.mmap(f.fileno(), 4096); m[:4] = b'here'\n" \
             "import subprocess; c = subprocess.Popen(['sleep', '1000'])\n" + \
             COUNTER.replace("print('tick', n,", "print('tick', n, m[:4], c.poll(),")
    # Where our own session began outside our PID namespace CRIU cannot save it: one of its own then.
    p = subprocess.Popen(["python3", "-c", script], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         env=t.env, start_new_session=os.getsid(0) == 0)
    try:
        first = p.stdout.readline()
        t.chrek("checkpoint", "--stop", "--id", "any", p.pid)
        p.wait(10)
        last = (first + p.stdout.read()).decode().splitlines()[-1].split()
        again = t.start("restore", "any")
        wait_for("ticks", lambda: "tick" in again.text() or again.poll() is not None)
        want = f"tick {int(last[1]) + 1} b'here' None"
        ticks = [line for line in again.text().splitlines() if line.startswith("tick")]
        assert ticks[0] == want, (want, again.text())
        t.stop(again)
    finally:
        p.kill()
        p.stdout.close()
        os.unlink(f"/dev/shm/{name}")


def test_chain_of_restores(t):
    """A restored program can be checkpointed again; generation counts the lives."""
    saved_counter(t, "g0")
    for i in range(1, 4):
        p = t.start("restore", f"g{i - 1}")
        wait_for("ticks", lambda p=p: ticks(p))
        t.chrek("checkpoint", "--id", f"g{i}", f"g{i - 1}")
        t.stop(p)
        meta = json.loads((t.store / f"g{i}/metadata.json").read_text())
        assert meta["chrek"]["generation"] == i and meta["chrek"]["parent_id"] == f"g{i - 1}"


def test_ls_verify_delete(t):
    """The store's commands agree with each other."""
    saved_counter(t)
    listed = t.json("ls")
    assert [c["id"] for c in listed] == ["c"] and listed[0]["usable"]
    assert "whole" in t.chrek("verify", "c").stdout
    t.chrek("delete", "c")
    assert t.json("ls") == []
    done = t.chrek("delete", "c", check=False)
    assert done.returncode == 3 and "no checkpoint" in done.stderr


def damage(path, offset):
    with open(path, "r+b") as f:
        f.seek(offset)
        byte = f.read(1)
        f.seek(offset)
        f.write(bytes([byte[0] ^ 1]))


def test_damage_is_refused(t):
    """One flipped bit in memory or in a small image: refused before anything runs, then cold."""
    saved_counter(t)
    pack = max((t.store / "packs").glob("*/*"), key=lambda p: p.stat().st_size)
    for path, offset in ((pack, pack.stat().st_size // 2),
                         (next((t.store / "c").glob("core-*.img")), 100)):
        damage(path, offset)
        done = t.chrek("restore", "c", check=False)
        assert done.returncode == 125 and path.name in done.stderr, done.stderr
        assert "damaged" in done.stderr, done.stderr
        assert "tick" not in done.stdout
        assert t.chrek("verify", "c", check=False).returncode == 4
        cold = t.start("run", "--name", "c", "--ready", "after:0.2", "--", "python3", "-c", COUNTER)
        wait_for("a cold start", lambda p=cold: ticks(p))
        assert ticks(cold)[0] == 1 and "Falling back to cold start" in cold.text()
        wait_for("the way out", lambda p=cold: "--cold makes a new one" in p.text() or p.poll() is not None)
        assert cold.poll() is None, cold.text()
        t.stop(cold)
        damage(path, offset)
    assert "whole" in t.chrek("verify", "c").stdout


def test_bad_markers_are_refused(t):
    """A failed, absent, cut or newer checkpoint is refused with its own reason."""
    saved_counter(t)
    done_file, meta_file = t.store / "c/checkpoint.done", t.store / "c/metadata.json"
    manifest_file = t.store / "c/manifest"
    good, meta, manifest = (f.read_text() for f in (done_file, meta_file, manifest_file))
    cases = (
        (done_file, good.replace("true", 'false,\n  "error": "disk on fire"'), "disk on fire"),
        (done_file, good[:40], "no JSON"),
        (done_file, "2026-01-31T00:00:00Z", "no JSON"),
        (done_file, None, "not finished"),
        (meta_file, re.sub(r'"format": \d+', '"format": 99', meta), "metadata.json' is damaged"),
        (manifest_file, re.sub(r'"format": ?\d+', '"format": 99', manifest, count=1), "newer chrek"),
    )
    for path, text, reason in cases:
        was = path.read_text()
        path.unlink() if text is None else path.write_text(text)
        done = t.chrek("restore", "c", check=False)
        assert done.returncode == 125 and reason in done.stderr, (reason, done.stderr)
        assert not t.json("ls")[0]["usable"]
        path.write_text(was)
    memory = t.store / "c/memory"
    os.truncate(memory, memory.stat().st_size - 8)
    assert "bytes instead of" in t.chrek("restore", "c", check=False).stderr


def test_missing_file(t):
    """A file that the program needs is gone: the error names it, and the command starts cold."""
    data = t.dir / "data"
    data.write_text("x" * 1000)
    script = f"f = open({str(data)!r})\n" + COUNTER
    t.run_until_saved("c", "after:0.3", "python3", "-c", script, options=["--stop"]).wait(30)
    data.unlink()
    done = t.chrek("restore", "c", check=False)
    assert done.returncode == 125 and "not there any more" in done.stderr, done.stderr
    assert "data" in done.stderr
    data.write_text("x" * 1000)
    p = t.start("restore", "c")
    wait_for("ticks", lambda: ticks(p))
    t.stop(p)


def test_ids_are_checked(t):
    """A name that would lead out of the store is refused."""
    for name in ("../x", "a/b", ".hidden", "-x", "tmp", "a\nb"):
        done = t.chrek("restore", "--", name, check=False)
        assert done.returncode != 0 and "cannot name a checkpoint" in done.stderr, (name, done)


def test_options_that_are_easily_mistaken(t):
    """A limit beyond CRIU's is refused, not cut; a command's -h is the command's."""
    for size in ("4G", "5G"):
        for command in (("run", "--", "true"), ("checkpoint", 1), ("doctor", 1)):
            done = t.chrek(command[0], "--ghost-limit", size, *command[1:], check=False)
            assert done.returncode == 2 and "--ghost-limit" in done.stderr, (size, command, done)
    done = t.chrek("run", "--no-tty", "printf", "-h", check=False)
    assert "chrek run" not in done.stdout, done.stdout


def test_existing_checkpoint_is_kept(t):
    """A second checkpoint of one id is refused, unless it shall replace the first."""
    p = t.run_until_saved("c", "after:0.2", "python3", "-c", COUNTER)
    before = (t.store / "c/metadata.json").read_bytes()
    done = t.chrek("checkpoint", "c", check=False)
    assert done.returncode == 9 and "already" in done.stderr
    assert (t.store / "c/metadata.json").read_bytes() == before
    t.chrek("checkpoint", "--replace", "c")
    assert (t.store / "c/metadata.json").read_bytes() != before
    assert sorted(os.listdir(t.store)) == ["c", "packs"], os.listdir(t.store)
    t.stop(p)


def test_kill_at_random_moments(t):
    """SIGKILL of `chrek checkpoint` at any moment: a whole checkpoint or none, and a live program."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c",
                "x = bytearray(200 << 20)\n" + COUNTER)
    wait_for("ticks", lambda: ticks(p))
    whole = none = 0
    for i in range(24):
        c = subprocess.Popen([CHREK, "checkpoint", "--id", f"k{i}", "c"], env=t.env,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.012 * i)
        c.kill()
        c.wait()
        seen = len(ticks(p))
        wait_for("life after the kill", lambda: len(ticks(p)) > seen + 2, 20)
        done = t.chrek("verify", f"k{i}", check=False)
        assert done.returncode in (0, 3), done.stderr
        whole, none = whole + (done.returncode == 0), none + (done.returncode == 3)
    assert none, "every kill came too late to be a test"
    t.stop(p)


def test_undumpable_is_left_running(t):
    """What cannot be saved is refused with meaning and remedy, and goes on."""
    script = "import ctypes\nl=ctypes.CDLL(None)\nb=ctypes.create_string_buffer(256)\n" \
             "assert l.syscall(425, 8, b) >= 0, 'no io_uring'\n" + COUNTER
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", script)
    wait_for("start", lambda: ticks(p) or p.poll() is not None)
    if p.poll() is not None:
        return  # this kernel has io_uring switched off: nothing to refuse
    done = t.chrek("checkpoint", "c", check=False)
    assert done.returncode == 5 and "run --no-io-uring" in done.stderr, done
    seen = len(ticks(p))
    wait_for("life", lambda: len(ticks(p)) > seen + 3)
    assert not any(t.store.glob("c*"))
    t.stop(p)


RINGS = """
import ctypes, errno, os, time
l = ctypes.CDLL(None, use_errno=True)
who = 'parent' if os.fork() else 'child'
while True:
    ring = l.syscall(425, 8, ctypes.create_string_buffer(256))
    print(who, 'ring' if ring >= 0 else errno.errorcode[ctypes.get_errno()], flush=True)
    time.sleep(0.05)
"""


def test_without_io_uring(t):
    """run --no-io-uring: there is none for the program and its children, in every life."""
    def expect_none(p):
        wait_for("both", lambda: "parent" in p.text() and "child" in p.text() or p.poll() is not None)
        assert p.poll() is None, p.text()
        said = re.findall(r"^(?:parent|child) (.*)\n", p.text(), re.M)
        assert set(said) == {"ENOSYS"}, said
        wait_for("more", lambda n=len(p.text()): len(p.text()) > n + 60)

    p = t.run_until_saved("c", "after:0.5", "python3", "-c", RINGS, options=["--no-io-uring"])
    expect_none(p)
    t.stop(p)
    for mode in ("full", "lazy", "workingset"):
        again = t.start("restore", "--mode", mode, "c")
        expect_none(again)
        t.chrek("checkpoint", "c", "--id", f"after-{mode}")
        t.stop(again)


def test_a_user_namespace_is_refused(t):
    """A program in a user namespace of its own: refused with the reason, and goes on."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "unshare", "-Ur", "sh", "-c",
                "while :; do echo tick 1; sleep 0.05; done")
    wait_for("start", lambda: "tick" in p.text() or p.poll() is not None)
    if p.poll() is not None:
        raise Skip("machine: no user namespaces here")
    done = t.chrek("checkpoint", "c", check=False)
    assert done.returncode == 5 and "user namespace of its own" in done.stderr, done.stderr
    seen = len(ticks(p))
    wait_for("life", lambda: len(ticks(p)) > seen + 2)
    t.stop(p)


def test_a_daemon_is_told_of(t):
    """A command that goes into the background: said, instead of a checkpoint that never comes."""
    done = t.chrek("run", "--name", "d", "--ready", "after:60", "--", "sh", "-c",
                   "setsid sleep 1000 >/dev/null 2>&1 & exit 3", check=False)
    assert done.returncode == 3 and "run the program in the foreground" in done.stderr, done.stderr
    done = t.chrek("run", "--name", "d", "--ready", "after:60", "--", "sh", "-c", "sleep 0; exit 3",
                   check=False)
    assert done.returncode == 3 and "ended before it was ready" in done.stderr, done.stderr
    assert "background" not in done.stderr, done.stderr


def test_a_service_beside_others(t):
    """One of two services below the PID 1 of a container: saved, the other is none of its business."""
    outer = subprocess.Popen(["unshare", "--kill-child", "-pfm", "--mount-proc", "sh", "-c",
                              "exec >/dev/null 2>&1; setsid sleep 1001 & setsid sleep 1002 & wait"],
                             stdin=subprocess.DEVNULL, env=t.env)

    def service():
        for pid in os.listdir("/proc"):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    words = f.read().split(b"\0") if pid.isdigit() else []
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if words[:2] == [b"sleep", b"1001"] and str(t.dir).encode() in f.read():
                        return pid
            except OSError:
                continue
        return None
    try:
        t.chrek("checkpoint", "--id", "one", wait_for("the service", service))
    finally:
        outer.kill()
        outer.wait(20)
    assert "whole" in t.chrek("verify", "one").stdout


def test_stray_daemon_is_refused(t):
    """A process that detached itself would be lost in silence; it is an error instead."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "sh", "-c",
                "(setsid sleep 1000 &) ; while :; do echo tick 1; sleep 0.1; done")
    wait_for("start", lambda: "tick" in p.text())
    done = t.chrek("checkpoint", "c", check=False)
    assert done.returncode == 5 and "detached" in done.stderr, done.stderr
    t.stop(p)
