"""What the system tests share: running chrek, waiting for things, looking for leaks."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORKLOADS = ROOT / "tests/workloads"
TIMEOUT = 60


class Skip(Exception):
    """The machine lacks what the test needs: says what."""


def find(variable, *paths):
    if os.environ.get(variable):
        return os.environ[variable]
    for path in paths:
        if (ROOT / path).exists():
            return str(ROOT / path)
    raise SystemExit(f"no program: set {variable}, or run make")


CHREK = find("CHREK", "build/plain/src/chrek")


def program(*names):
    """The path of an installed program, or Skip."""
    for name in names:
        if shutil.which(name):
            return shutil.which(name)
    raise Skip(f"{' or '.join(names)} is not installed")


def wait_for(what, condition, timeout=TIMEOUT):
    """Poll until condition() is true; its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout} s in vain for {what}")
        time.sleep(0.02)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def http(port, path="/", timeout=20):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return answer.read().decode()


def http_or_none(port, path="/"):
    try:
        return http(port, path, timeout=5)
    except OSError:
        return None


class Test:
    """One test's directory, store and programs."""

    def __init__(self, name):
        self.name = name
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="chrek-test-"))
        self.store = self.dir / "store"
        self.env = dict(os.environ, CHREK_STORE=str(self.store), CHREK_CONFIG=str(self.dir / "c.json"))
        self.env.pop("CHREK_FAULT", None)
        self.env.pop("PYTHONUNBUFFERED", None)  # a line is written whole
        self.running = []
        self.outputs = []
        self.mounts = []

    # -- programs --

    def chrek(self, *args, check=True, **kwargs):
        """Run chrek to its end; a CompletedProcess with text output."""
        done = subprocess.run([CHREK, *map(str, args)], env=kwargs.pop("env", self.env), text=True,
                              capture_output=True, timeout=kwargs.pop("timeout", TIMEOUT),
                              cwd=kwargs.pop("cwd", self.dir), **kwargs)
        self.outputs.append((args, done.returncode, done.stdout[-2000:], done.stderr[-2000:]))
        if check:
            assert done.returncode == 0, f"chrek {args} ended with {done.returncode}: {done.stderr}"
        return done

    def limited(self, limit, *args):
        """Run chrek in a shell that has done something before."""
        done = subprocess.run(["bash", "-c", f'{limit}; exec "$@"', "-", CHREK, *map(str, args)],
                              env=self.env, text=True, capture_output=True, timeout=TIMEOUT,
                              cwd=self.dir, check=False)
        self.outputs.append((args, done.returncode, done.stdout[-2000:], done.stderr[-2000:]))
        return done

    def start(self, *args, name=None, **kwargs):
        """Start chrek in the background with its output in files."""
        log = self.dir / f"out-{len(self.running)}.txt"
        with open(log, "wb") as out:
            p = subprocess.Popen([CHREK, *map(str, args)], env=kwargs.pop("env", self.env),
                                 stdin=kwargs.pop("stdin", subprocess.DEVNULL),
                                 stdout=kwargs.pop("stdout", out), stderr=subprocess.STDOUT,
                                 cwd=kwargs.pop("cwd", self.dir), **kwargs)
        p.log = log
        p.text = lambda: log.read_text(errors="replace")
        self.running.append(p)
        return p

    def run_until_saved(self, name, ready, *command, options=(), **kwargs):
        """A first run: wait until the checkpoint is there; the running process."""
        p = self.start("run", "--name", name, "--ready", ready, *options, "--", *command, **kwargs)
        wait_for(f"checkpoint {name}", lambda: self.saved(name) or p.poll() is not None)
        if not self.saved(name):
            raise AssertionError(f"no checkpoint: {p.text()}")
        return p

    def saved(self, name):
        return (self.store / name / "checkpoint.done").exists()

    def stop(self, p, sig=signal.SIGTERM):
        if p.poll() is None:
            p.send_signal(sig)
        return p.wait(TIMEOUT)

    def between(self, text, action):
        """Variables that put criu_proxy.py between chrek and CRIU."""
        proxy = self.dir / "criu"
        proxy.write_bytes((ROOT / "tests/system/criu_proxy.py").read_bytes())
        proxy.chmod(0o755)
        return {"PROXY": f"{text}={action}", "CHREK_CRIU": str(proxy),
                "PROXY_CRIU": find("CHREK_CRIU", "build/criu/sbin/criu")}

    def tmpfs(self, name):
        """A directory that is a file system of its own, for the test's life."""
        path = self.dir / name
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "chrek-test", path], check=True)
        self.mounts.append(path)
        return path

    def json(self, *args):
        return json.loads(self.chrek(*args, "--json").stdout)

    # -- the end --

    def diagnosis(self):
        said = [f"{args}: {code}\n{out}{err}" for args, code, out, err in self.outputs[-3:]]
        said += [f"output of {p.args}: {p.text()[-3000:]}" for p in self.running[-3:]
                 if p.log.exists()]
        return "\n".join(said)

    def close(self):
        for p in self.running:
            if p.poll() is None:
                p.kill()
            p.wait(TIMEOUT)
        for path in reversed(self.mounts):
            subprocess.run(["umount", "-l", path], check=False)
        self.mounts = []
        shutil.rmtree(self.dir, ignore_errors=True)


def processes_of(mark):
    """Living processes whose environment names the test: chrek, criu, and what runs in boxes."""
    found = {}
    for d in os.listdir("/proc"):
        try:
            if not d.isdigit() or int(d) == os.getpid():
                continue
            state = pathlib.Path("/proc", d, "stat").read_text().rsplit(")", 1)[1].split()[0]
            if state != "Z" and mark in pathlib.Path("/proc", d, "environ").read_bytes():
                found[int(d)] = pathlib.Path("/proc", d, "cmdline").read_bytes()
        except OSError:
            continue
    return found


def census(t):
    """What a test may have left: processes, boxes, mounts in our own table, work directories."""
    with open("/proc/self/mountinfo", encoding="utf-8") as f:
        mounts = [line for line in f if str(t.dir) in line or "/run/chrek" in line]
    boxes = set()
    for name in os.listdir("/run/chrek/boxes") if os.path.isdir("/run/chrek/boxes") else ():
        try:
            if str(t.dir) in pathlib.Path("/run/chrek/boxes", name, "box.json").read_text():
                boxes.add(name)
        except OSError:
            continue
    return {"mounts": mounts, "boxes": boxes, "processes": processes_of(str(t.dir).encode())}


def check_leaks(t):
    """Nothing that a test has made outlives it; what is being reaped gets a moment."""
    subprocess.run([CHREK, "status"], env=t.env, capture_output=True, timeout=TIMEOUT, check=False)
    shutil.rmtree(t.dir, ignore_errors=True)
    end = time.monotonic() + 5
    while any(census(t).values()):
        if time.monotonic() > end:
            raise AssertionError(f"leaked: {census(t)}")
        time.sleep(0.05)
