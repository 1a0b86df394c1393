"""Plain checkpoints: what any CRIU reads, although we write most of it."""

import os
import struct
import subprocess

from lib import find, wait_for
from test_workloads import built

CRIU = find("CHREK_CRIU", "build/criu/sbin/criu")
PAGE = 4096


def numbers(message):
    """The integers of a protobuf message, by their fields."""
    found, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            value |= (message[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if message[at - 1] < 128:
                return value

    while at < len(message):
        key = number()
        assert key & 7 == 0
        found[key >> 3] = number()
    return found


def messages(path):
    data, at = path.read_bytes(), 8
    while at < len(data):
        size, = struct.unpack_from("<I", data, at)
        yield numbers(data[at + 4:at + 4 + size])
        at += 4 + size


def pages(images):
    """What a directory of images says of memory: page map -> address -> content."""
    found = {}
    for path in sorted(images.glob("pagemap-*.img")):
        head, *runs = messages(path)
        data = (images / f"pages-{head[1]}.img").read_bytes()
        assert all(r[4] in (4, 6) for r in runs), (path, runs)  # present; and may be lazy
        assert [r[1] for r in runs] == sorted(r[1] for r in runs)
        memory, at = found.setdefault(path.name, {}), 0
        for r in runs:
            for page in range(r[5]):
                memory[r[1] + page * PAGE] = r[4], data[at:at + PAGE]
                at += PAGE
        assert at == len(data)
    return found


def waiting(t, megabytes):
    """A program that knows what its memory must be, and waits; outside of any box."""
    with open(t.dir / "said", "wb") as said:
        p = subprocess.Popen([built(t, "churn.c"), str(megabytes), t.dir / "go", "rest"], env=t.env,
                             stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    wait_for("ready", lambda: b"ready" in (t.dir / "said").read_bytes() or p.poll() is not None)
    return p


def test_same_as_of_criu(t):
    """CRIU's own dump of a program that waits has the same pages, and CRIU alone restores from ours."""
    p = waiting(t, 32)
    theirs = t.dir / "theirs"
    theirs.mkdir()
    subprocess.run([CRIU, "dump", "-t", str(p.pid), "-D", theirs, "-o", "dump.log", "--leave-running"],
                   check=True, capture_output=True, timeout=60)
    t.chrek("checkpoint", "--stop", "--format", "plain", "--id", "x", p.pid)
    p.wait(60)
    assert "whole" in t.chrek("verify", "x").stdout
    a, b = pages(theirs), pages(t.store / "x")
    assert a.keys() == b.keys()
    for name, memory in a.items():
        assert memory.keys() == b[name].keys(), name
        other = [address for address, page in memory.items() if page != b[name][address]]
        assert len(memory) > 1000 * (name == f"pagemap-{p.pid}.img")
        assert len(other) <= 8, (name, other)  # its stack, and what its libc keeps of a clock
    again = t.dir / "pid"
    done = subprocess.run([CRIU, "restore", "-d", "-D", t.store / "x", "-o", t.dir / "log", "--pidfile", again,
                           "--shell-job", "--file-locks", "--tcp-close"],
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, (t.dir / "log").read_text()[-2000:]
    (t.dir / "go").touch()
    wait_for("its end", lambda: not os.path.exists(f"/proc/{again.read_text()}"))
    assert b"all ok" in (t.dir / "said").read_bytes()
