"""gc --repack: scattered memory brought together, space given back, beside everything else, and interrupted."""

import json
import shutil
import signal
import subprocess

from lib import wait_for
from test_crypto import make_key

# Blocks that say their own number; each line on standard input writes every eighth of them anew.
PROGRAM = """
import hashlib, os, sys
blocks = [bytearray(os.urandom(65536)) for _ in range(64)]
def said():
    h = hashlib.sha256()
    for b in blocks:
        h.update(b)
    print(h.hexdigest(), flush=True)
said()
for n, line in enumerate(iter(sys.stdin.readline, '')):
    if line.startswith('new'):
        for i in range(n % 8, 64, 8):
            blocks[i][:] = os.urandom(65536)
    said()
"""
ROUNDS = 10  # the last needs memory of nine of them: more reads than its few MiB are worth
LAST = f"c-{ROUNDS - 1}"


def last(p):
    return (p.text().split() or [""])[-1]


def ask(p, word):
    """What it says of its memory after this."""
    before = len(p.text().split())
    p.stdin.write(word.encode() + b"\n")
    p.stdin.flush()
    wait_for("its answer", lambda: len(p.text().split()) > before or p.poll() is not None)
    return last(p)


def save(t, name, *options):
    """A checkpoint, as soon as the one before has let the program go."""
    argv = ("checkpoint", "--id", name, *map(str, options), "c")
    wait_for("the checkpoint", lambda: "is just being saved" not in t.chrek(*argv, check=False).stderr)
    assert t.saved(name)


def history(t, *options):
    """Checkpoints c-0, c-1, … of a program that changes; what it said at each."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", PROGRAM, stdin=subprocess.PIPE)
    wait_for("its first line", lambda: last(p))
    said = []
    for i in range(ROUNDS):
        said.append(ask(p, "new"))
        save(t, f"c-{i}", *options)
    t.stop(p)
    return said


def lives(t, name, said, *options):
    p = t.start("restore", "--quiet", *map(str, options), name, stdin=subprocess.PIPE)
    assert ask(p, "say") == said, (name, p.text())
    t.stop(p)


def stored(t, name):
    return json.loads(t.chrek("inspect", "--json", name).stdout)["stored"]


def size(t):
    return sum(f.stat().st_size for f in (t.store / "packs").rglob("*") if f.is_file())


def test_scattered_checkpoints_are_brought_together(t):
    """After a row of checkpoints the newest lies in one piece, deleted ones give back their space, all live."""
    said = history(t)
    for i in (1, 3):
        t.chrek("delete", f"c-{i}")
    t.chrek("gc")
    before, scattered = size(t), stored(t, LAST)
    assert scattered["places"] > ROUNDS, scattered
    dry = t.json("gc", "--repack", "--dry-run")["repack"]
    assert dry["checkpoints"] == ROUNDS - 2 and size(t) == before, dry
    done = t.json("gc", "--repack")
    assert done["repack"]["checkpoints"] == ROUNDS - 2 and not done["repack"]["left"], done
    assert size(t) == done["bytes_kept"] < before, (before, done)
    assert stored(t, LAST)["places"] <= 2, stored(t, LAST)
    t.chrek("verify", "--all")
    for i in (0, 2, 4, ROUNDS - 1):
        lives(t, f"c-{i}", said[i], "--mode", "lazy" if i == 4 else "full")
    again = t.json("gc", "--repack")
    assert again["repack"]["checkpoints"] == 0 and again["packs_removed"] == 0, again
    assert "0 checkpoints repacked" in t.chrek("gc", "--repack").stdout


def test_encrypted_and_signed_checkpoints(t):
    """With the keys they are encrypted and signed anew; without, left as they are, and named."""
    t.env["CHREK_KEY_FILE"] = str(make_key(t, "key"))
    sign = make_key(t, "sign", "--sign")
    said = history(t, "--sign-key", sign)
    before = stored(t, LAST)
    left = t.json("gc", "--repack")["repack"]
    assert left["checkpoints"] == 0 and len(left["left"]) == ROUNDS and "--sign-key" in left["left"][0]["error"], left
    blind = {k: v for k, v in t.env.items() if k != "CHREK_KEY_FILE"}
    p = t.chrek("gc", "--repack", "--sign-key", sign, env=blind)
    assert p.stdout.count("not repacked") == ROUNDS and "no key" in p.stdout, p.stdout
    assert stored(t, LAST) == before
    done = t.json("gc", "--repack", "--sign-key", sign)["repack"]
    assert done["checkpoints"] == ROUNDS and not done["left"], done
    assert stored(t, LAST)["places"] < before["places"]
    trust = ("--trust-key", f"{sign}.pub")
    t.chrek("verify", "--all", *trust)
    lives(t, LAST, said[-1], *trust)
    lives(t, "c-2", said[2], *trust)


def test_changes_stay_changes(t):
    """What is stored as little changes of an earlier checkpoint's pages goes along with these pages."""
    p = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c",
                PROGRAM.replace("blocks[i][:] = os.urandom(65536)",
                                "[b.__setitem__(slice(n * 8, n * 8 + 4), os.urandom(4)) for b in "
                                "(memoryview(blocks[i])[k:k + 4096] for k in range(0, 65536, 4096))]"),
                stdin=subprocess.PIPE)
    wait_for("its first line", lambda: last(p))
    said = []
    for i in range(ROUNDS):
        said.append(ask(p, "new"))
        save(t, f"c-{i}")
    t.stop(p)
    t.chrek("delete", "c-0", "c-2")
    t.chrek("gc")
    before = stored(t, LAST)
    assert before["changed_pages"] > 200, before
    t.chrek("gc", "--repack")
    after = stored(t, LAST)
    assert after["changed_pages"] > 200 and after["places"] < before["places"], (before, after)
    t.chrek("verify", "--all")
    for i in (1, 3, ROUNDS - 1):
        lives(t, f"c-{i}", said[i])


def test_who_checkpoints_and_restores_goes_on(t):
    """A restore that still reads and a capture under way: both are right, and old packs go with a later gc."""
    said = history(t)
    reader = t.start("restore", "--quiet", "--mode", "lazy", LAST, stdin=subprocess.PIPE)
    writer = t.start("run", "--name", "w", "--ready", "never", "--", "python3", "-c", PROGRAM, stdin=subprocess.PIPE)
    wait_for("its first line", lambda: last(writer))
    c = t.start("checkpoint", "--id", "w", "w", env=dict(t.env, **t.between("query-ext-files", "hang")))
    wait_for("the staging directory", lambda: list(t.store.glob("w.tmp-*")))
    refused = t.chrek("gc", "--repack", check=False)
    assert refused.returncode and "being made" in refused.stderr, refused.stderr
    t.stop(c, signal.SIGKILL)
    done = t.json("gc", "--repack")["repack"]
    assert done["checkpoints"] == ROUNDS, done
    assert ask(reader, "say") == said[-1], reader.text()
    t.stop(reader)
    t.chrek("checkpoint", "--id", "w", "w")
    t.stop(writer)
    t.chrek("gc")
    t.chrek("verify", "--all")
    lives(t, LAST, said[-1])


def test_object_storage_is_refused(t):
    """It is said, with a way out, before anything is deleted."""
    t.store.mkdir(exist_ok=True)
    t.env["CHREK_STORE"] = f"object://{t.store}"
    p = t.chrek("gc", "--repack", "--keep-last", "1", check=False)
    assert p.returncode and "chrek copy" in p.stderr, p.stderr


def test_a_repack_that_is_killed(t):
    """At whatever it is: every checkpoint is whole, and the next repack goes on."""
    said = history(t)
    t.chrek("delete", "c-1")
    t.chrek("gc")
    kept = t.dir / "kept"
    shutil.copytree(t.store, kept)

    def packs():
        return {f.name for f in (t.store / "packs").rglob("*") if f.is_file()}

    def inode(name):
        return (t.store / name).stat().st_ino

    for moment in ("begun", "packs", "staged", "exchanged", "collecting"):
        shutil.rmtree(t.store)
        shutil.copytree(kept, t.store)
        old, first = packs(), inode(LAST)
        reached = {"begun": lambda: True,
                   "packs": lambda o=old: packs() - o,
                   "staged": lambda: list(t.store.glob("c-*.tmp-*")),
                   "exchanged": lambda f=first: inode(LAST) != f,
                   "collecting": lambda o=old: o - packs()}[moment]
        p = t.start("gc", "--repack")
        while not reached() and p.poll() is None:
            pass
        p.kill()
        p.wait()
        t.chrek("verify", "--all")
        t.chrek("gc", "--repack")
        t.chrek("verify", "--all")
        assert stored(t, LAST)["places"] <= 2, (moment, stored(t, LAST))
    lives(t, LAST, said[-1])
    lives(t, "c-0", said[0])
