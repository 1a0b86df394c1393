"""Pages that changed a little are stored as their changes: small, whole again in every mode, and never
without what they are changes of."""

from lib import wait_for
from test_crypto import make_key
from test_pager import MODES

# 16 MiB of noise, of which every page gets a few new bytes when the flag is raised.
PROGRAM = r"""
import hashlib, os, sys, time
flag, count = sys.argv[1], 0
data = bytearray(os.urandom(16 << 20))
while True:
    if os.path.exists(flag):
        count += 1
        for i in range(count % 7 * 64, len(data), 4096):
            data[i:i + 8] = b"%08d" % count
        os.unlink(flag)
    print(count, hashlib.blake2b(data).hexdigest(), flush=True)
    time.sleep(0.05)
"""
PAGES = 16 << 8


def last(p):
    """The last whole line that it has said."""
    lines = p.text().split("\n")
    return lines[-2] if len(lines) > 1 else ""


def change(t, p):
    count = int(last(p).split()[0])
    (t.dir / "flag").touch()
    wait_for("the change", lambda: last(p).startswith(f"{count + 1} ") or p.poll() is not None)
    return last(p)


def begin(t):
    p = t.start("run", "--name", "c", "--cold", "--ready", "never", "--",
                "python3", "-c", PROGRAM, t.dir / "flag")
    wait_for("its first line", lambda: last(p) or p.poll() is not None)
    return p


def lives(t, i, want, modes=MODES):
    """Restored in every mode it goes on with the memory that it was saved with."""
    for mode in modes:
        p = t.start("restore", "--mode", mode, "--name", f"r{i}{mode}", "--quiet", i)
        wait_for("its first line", lambda p=p: last(p) or p.poll() is not None)
        assert last(p) == want, (mode, last(p), want, p.text()[-500:])
        t.stop(p)


def added(t, i):
    """Bytes that it has added, and pages that are changes."""
    shown = t.json("inspect", i)
    return shown["bytes"]["total"], shown["stored"]["changed_pages"]


def three(t):
    """Checkpoints of one program, with a change before each; what it said at each."""
    p = begin(t)
    said = [last(p)]
    t.chrek("checkpoint", "--id", "c-0", "c")
    for i in (1, 2):
        said.append(change(t, p))
        t.chrek("checkpoint", "--id", f"c-{i}", *(["--incremental"] if i == 2 else []), "c")
    t.stop(p)
    whole, none = added(t, "c-0")
    assert none == 0 and whole > 16 << 20, (whole, none)
    for i in (1, 2):
        size, changes = added(t, f"c-{i}")
        assert changes > PAGES * 9 // 10 and size < whole // 10, (i, size, whole, changes)
    return said


def test_little_changes(t):
    """What is left when the first checkpoint is deleted and collected is whole; copies are, too."""
    said = three(t)
    lives(t, "c-1", said[1])
    t.chrek("delete", "c-0")
    t.chrek("gc")
    t.chrek("verify", "--all")
    lives(t, "c-2", said[2])
    t.chrek("copy", t.store, t.dir / "other", "c-2")
    t.chrek("delete", "c-1", "c-2")
    t.chrek("gc")
    t.env["CHREK_STORE"] = str(t.dir / "other")
    t.chrek("verify", "--all")
    lives(t, "c-2", said[2])


def test_little_changes_encrypted(t):
    """The same in a store with a key."""
    t.env["CHREK_KEY_FILE"] = str(make_key(t, "key"))
    said = three(t)
    t.chrek("delete", "c-0")
    t.chrek("gc")
    t.chrek("verify", "--all")
    lives(t, "c-2", said[2], ["full"])


def test_little_changes_in_object_storage(t):
    """The same where checkpoints are objects, and of a restored program."""
    t.env["CHREK_STORE"] = f"object://{t.store}"
    said = three(t)
    lives(t, "c-2", said[2])
    p = t.start("restore", "--name", "d", "--quiet", "c-2")
    wait_for("its first line", lambda: last(p) or p.poll() is not None)
    said.append(change(t, p))
    t.chrek("checkpoint", "--id", "d-0", "d")
    t.stop(p)
    size, changes = added(t, "d-0")
    assert changes > PAGES * 9 // 10 and size < 2 << 20, (size, changes)
    lives(t, "d-0", said[3])
