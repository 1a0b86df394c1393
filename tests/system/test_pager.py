"""Restored programs that run before their memory is there: every byte right, or no program."""

import os
import pathlib
import random
import re
import signal
import time

from lib import Skip, processes_of, wait_for
from test_workloads import built

MODES = ("full", "lazy", "workingset")


def checkpoint(t, *argv, name="c", options=()):
    """A checkpoint of a program that prints "ready" and waits for the file `go`."""
    (t.dir / "go").unlink(missing_ok=True)
    p = t.run_until_saved(name, "log:ready", *argv, options=["--stop", *options])
    assert p.wait(60) == 0, p.text()


def restore(t, mode, name="c", box=None, env=None):
    (t.dir / "go").touch()
    return t.start("restore", "--mode", mode, "--name", box or f"{name}-{time.monotonic_ns()}",
                   "--quiet", name, env=env or t.env)


def helpers(p):
    """The pager and the guardian of a restore."""
    found = {}
    for d in pathlib.Path("/proc").iterdir():
        try:
            if d.name.isdigit() and (d / "comm").read_text().startswith("chrek-"):
                parents = [d.name, *re.findall(r"PPid:\s+(\d+)", (d / "status").read_text())]
                grand = pathlib.Path("/proc", parents[1], "status").read_text()
                if str(p.pid) in (parents[1], re.findall(r"PPid:\s+(\d+)", grand)[0]):
                    found[(d / "comm").read_text().strip()] = int(d.name)
        except OSError:
            continue
    return found


def ended_well(p):
    code = p.wait(120)
    assert code == 0 and "all ok" in p.text(), (code, p.text()[-1000:])


def test_churn(t):
    """Forks, threads, munmap, mremap, mprotect and MADV_DONTNEED while memory comes: each mode."""
    checkpoint(t, built(t, "churn.c"), 64, t.dir / "go")
    assert not (t.store / ".workingset").exists()
    for mode in MODES:
        ended_well(restore(t, mode))
    assert (t.store / ".workingset/c").exists()
    ended_well(restore(t, "workingset"))


def test_encrypted(t):
    """Encrypted memory comes in each mode; nothing of it is left beside the checkpoint in the clear."""
    key = t.dir / "key"
    t.chrek("key", "generate", key)
    env = dict(t.env, CHREK_KEY_FILE=str(key))
    (t.dir / "go").unlink(missing_ok=True)
    p = t.run_until_saved("c", "log:ready", built(t, "churn.c"), 48, t.dir / "go", options=["--stop"], env=env)
    assert p.wait(60) == 0, p.text()
    for mode in MODES:
        p = restore(t, mode, env=env)
        if mode != "full":
            wait_for("a pager", lambda p=p: helpers(p).get("chrek-pager") or p.poll() is not None)
        ended_well(p)
        assert "restoring in full" not in p.text(), p.text()
    assert not (t.store / ".workingset").exists()


def test_record(t):
    """A first lazy restore records; then the default is workingset; deleting removes the record."""
    checkpoint(t, built(t, "churn.c"), 48, t.dir / "go", "rest")
    assert "working_set_pages" not in t.json("inspect", "c")["stored"]
    ended_well(restore(t, "lazy"))
    record = t.store / ".workingset/c"
    assert record.stat().st_size > 10 << 20
    stored = t.json("inspect", "c")["stored"]
    assert (10 << 20) / 4096 < stored["working_set_pages"] <= stored["pages"], stored
    assert "working set" in t.chrek("inspect", "c").stdout
    (t.dir / "go").unlink()
    p = t.start("restore", "--quiet", "c")
    wait_for("a pager", lambda: helpers(p).get("chrek-pager"))
    (t.dir / "go").touch()
    ended_well(p)
    t.chrek("delete", "c")
    assert not record.exists()


# Memory that asks for huge pages; says how many MB of it lie in such.
HUGE = """
import mmap, os, re, time, zlib
SIZE = 96 << 20
m = mmap.mmap(-1, SIZE + (2 << 20), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
m.madvise(mmap.MADV_HUGEPAGE)
block = os.urandom(1 << 20)
for i in range(SIZE >> 20):
    m[i << 20:(i + 1) << 20] = block[i:] + block[:i]
was = zlib.crc32(m)
print('ready', flush=True)
while True:
    time.sleep(0.2)
    huge = sum(map(int, re.findall(r'AnonHugePages: +([0-9]+)', open('/proc/self/smaps').read())))
    print('huge', huge >> 10, 'right' if zlib.crc32(m) == was else 'wrong', flush=True)
"""


def test_huge_pages_come_back(t):
    """What came page by page is in huge pages again where the program had asked for them."""
    if "[never]" in pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text():
        raise Skip("machine: no transparent huge pages")
    (t.dir / "huge.py").write_text(HUGE)
    checkpoint(t, "python3", t.dir / "huge.py")
    for mode in ("lazy", "workingset"):
        p = restore(t, mode)
        wait_for("huge pages", lambda p=p: any(int(mb) >= 90 for mb in re.findall(r"huge (\d+)", p.text())), 60)
        assert "wrong" not in p.text() and "restoring in full" not in p.text(), p.text()
        wait_for("the pager's end", lambda p=p: not helpers(p))
        t.stop(p)


def test_damaged_record(t):
    """A record that is damaged anywhere costs nothing but time."""
    checkpoint(t, built(t, "churn.c"), 32, t.dir / "go", "rest")
    ended_well(restore(t, "lazy"))
    record = t.store / ".workingset/c"
    good = record.read_bytes()
    for at in (3, 20, 100, len(good) // 2, len(good) - 5):
        record.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
        ended_well(restore(t, "workingset"))
    record.write_bytes(good[:len(good) // 2])
    ended_well(restore(t, "workingset"))


def test_many_at_once(t):
    """Several restores of one checkpoint at the same time, in all modes."""
    checkpoint(t, built(t, "churn.c"), 32, t.dir / "go")
    running = [restore(t, mode) for mode in MODES * 2]
    for p in running:
        ended_well(p)


def killed_once(t, victim, delay):
    """Kill a helper somewhere in the life of a restore; what became of the program."""
    (t.dir / "go").unlink(missing_ok=True)
    p = t.start("restore", "--mode", "lazy", "--record", "100ms", "--name", "c", "--quiet", "c")
    pid = wait_for("the helper", lambda: helpers(p).get(victim) or p.poll() is not None)
    (t.dir / "go").touch()
    time.sleep(delay)
    try:
        if pid is not True:
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    code = p.wait(120)
    text = p.text()
    assert "bad:" not in text, text
    if code == 0:
        assert "all ok" in text, text
        return "done"
    assert "all ok" not in text and "killed" in text, (code, text)
    assert code in (124, 125), (code, text)  # after, or before it ran
    return "ended"


def test_killed_pager(t):
    """The pager is killed at random moments: the program is ended and the reason told, or all its
    memory was in; no wrong byte is ever seen."""
    checkpoint(t, built(t, "churn.c"), 48, t.dir / "go", "rest")
    dice = random.Random(1)
    seen = []
    for i in range(int(os.environ.get("CHREK_PAGER_KILLS", "24"))):
        victim = "chrek-guardian" if i % 6 == 5 else "chrek-pager"
        (t.store / ".workingset/c").unlink(missing_ok=True)
        seen.append(killed_once(t, victim, dice.random() ** 2 * 0.6))
    assert "ended" in seen, seen


def crashes_of_pagers():
    """What the kernel has to say of pagers that went down by themselves."""
    try:
        log = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    except OSError as e:
        raise Skip(f"machine: the kernel's log cannot be read ({e})") from e
    said = []
    while True:
        try:
            line = os.read(log, 8192)
            if b"chrek-pager[" in line:
                said.append(line)
        except BrokenPipeError:
            continue  # it was overwritten meanwhile
        except BlockingIOError:
            os.close(log)
            return said


def test_killed_chrek_while_the_working_set_comes(t):
    """kill -9 of `chrek restore`: the pager ends the program, and does not crash over it."""
    checkpoint(t, built(t, "churn.c"), 384, t.dir / "go", "rest")
    ended_well(restore(t, "lazy"))
    before = crashes_of_pagers()
    for i in range(12):
        (t.dir / "go").unlink(missing_ok=True)
        p = t.start("restore", "--mode", "workingset", "--name", "c", "--quiet", "c")
        pager = wait_for("the pager", lambda p=p: helpers(p).get("chrek-pager") or p.poll() is not None)
        time.sleep(i * 0.03)
        t.stop(p, signal.SIGKILL)
        wait_for("the end of all", lambda: not processes_of(str(t.dir).encode()))
    after = [line for line in crashes_of_pagers() if line not in before]
    assert not after, after


def test_killed_before_it_runs(t):
    """A pager that dies before the program runs: `chrek run` starts cold."""
    go = t.dir / "go"
    churn = built(t, "churn.c")
    checkpoint(t, churn, 32, go, "rest")
    criu = t.dir / "criu"
    criu.write_text(f"#!/bin/sh\nsleep 1\nexec {os.environ.get('CHREK_CRIU', 'criu')} \"$@\"\n")
    criu.chmod(0o755)
    p = t.start("run", "--name", "c", "--restore-mode", "lazy", "--ready", "never", "--criu", criu,
                "--", churn, 32, go, "rest")
    os.kill(wait_for("the pager", lambda: helpers(p).get("chrek-pager")), signal.SIGKILL)
    go.touch()
    assert p.wait(120) == 0, p.text()
    assert "Falling back to cold start" in p.text() and "all ok" in p.text(), p.text()


def test_damaged_chunk(t):
    """A damaged chunk ends the program with its own message; it never reads a wrong byte."""
    checkpoint(t, built(t, "churn.c"), 48, t.dir / "go", "rest")
    pack = max((t.store / "packs").glob("*/*"), key=lambda f: f.stat().st_size)
    good = pack.read_bytes()
    for part in (0.2, 0.6):
        at = int(len(good) * part)
        with open(pack, "r+b") as f:
            f.seek(at)
            f.write(bytes([good[at] ^ 4]))
        p = restore(t, "lazy")
        code = p.wait(120)
        assert code in (124, 125) and "damaged" in p.text(), (code, p.text())
        assert "bad:" not in p.text() and "all ok" not in p.text()
        pack.write_bytes(good)
    ended_well(restore(t, "lazy"))


def test_plain(t):
    """A plain checkpoint is restored whole, by us and by CRIU; a damaged page image by nobody."""
    checkpoint(t, built(t, "churn.c"), 48, t.dir / "go", options=["--format", "plain"])
    for mode in ("full", "criu"):
        ended_well(restore(t, mode))
    pages = max((t.store / "c").glob("pages-*.img"), key=lambda f: f.stat().st_size)
    good = pages.read_bytes()
    for at in (0, len(good) // 2, len(good) - 1):
        pages.write_bytes(good[:at] + bytes([good[at] ^ 4]) + good[at + 1:])
        for mode in ("full", "criu"):
            p = restore(t, mode)
            assert p.wait(60) == 125 and "damaged" in p.text(), p.text()
            assert "ok" not in p.text(), p.text()
    pages.write_bytes(good)
    ended_well(restore(t, "full"))


def test_criu_reads_no_packs(t):
    """The mode that is for plain checkpoints only says so."""
    checkpoint(t, built(t, "churn.c"), 16, t.dir / "go", "rest")
    p = t.start("restore", "--mode", "criu", "c")
    (t.dir / "go").touch()
    ended_well(p)
    assert "restoring in full, not criu" in p.text(), p.text()


def test_no_userfaultfd(t):
    """Where userfaultfd cannot be had the restore is full, and says so."""
    checkpoint(t, built(t, "churn.c"), 16, t.dir / "go", "rest", options=["--format", "plain"])
    p = t.start("restore", "--mode", "lazy", "c")
    (t.dir / "go").touch()
    ended_well(p)
    assert "restoring in full, not lazy" in p.text(), p.text()


def pss_of(p):
    """Bytes of memory of all processes of a box, shared ones divided."""
    total = 0
    for d in pathlib.Path("/proc").iterdir():
        try:
            if d.name.isdigit() and (d / "comm").read_text() == "cowtree\n":
                found = re.search(r"Pss:\s+(\d+) kB", (d / "smaps_rollup").read_text())
                total += int(found[1]) << 10
        except OSError:
            continue
    assert p.poll() is None, p.text()
    return total


def test_shared_tree(t):
    """Processes that share memory since a fork go on sharing it, in each mode."""
    argv = [built(t, "cowtree.c"), 64, t.dir / "go"]
    (t.dir / "go").unlink(missing_ok=True)
    p = t.run_until_saved("c", "log:ready", *argv, options=["--stop"])
    assert p.wait(60) == 0, p.text()
    stored = sum(f.stat().st_size for f in (t.store / "packs").glob("*/*"))
    assert stored < 72 << 20, stored  # it does not compress
    for mode in MODES:
        p = t.start("restore", "--mode", mode, "--quiet", "--name", f"c-{mode}", "c")
        wait_for("it to run", lambda p=p: "again" in p.text() or p.poll() is not None)
        if mode != "full":
            wait_for("all memory", lambda p=p: not helpers(p), timeout=30)
        now = pss_of(p)
        assert 64 << 20 < now < 76 << 20, (mode, now)
        (t.dir / "go").touch()
        ended_well(p)
        (t.dir / "go").unlink()
