"""Checkpoints in object storage, with real programs: the store as an URL."""

import os
import re
import signal

from lib import wait_for
from test_pager import ended_well, helpers, restore
from test_workloads import built

COUNTER = """
import time, sys
ballast = bytearray(b'chrek' * 1000000)
n = 0
while True:
    n += 1
    print('tick', n, len(ballast), flush=True)
    time.sleep(0.05)
"""


def ticks(p):
    return [int(n) for n in re.findall(r"^tick (\d+) 5000000\n", p.text(), re.M)]


def use_objects(t):
    """Let the test's store be object storage; its directory."""
    t.env["CHREK_STORE"] = f"object://{t.store}"
    t.env["TMPDIR"] = str(t.tmpfs("tmp"))
    return t.store


def saved(t, *options):
    p = t.start("run", "--name", "c", "--ready", "after:0.4", "--stop", *options, "--", "python3",
                "-c", COUNTER)
    assert p.wait(60) == 0, p.text()
    return ticks(p)[-1]


def saved_at_rest(t, megabytes):
    """A program with so much memory, which it checks once the file `go` is there."""
    p = t.start("run", "--name", "c", "--ready", "log:ready", "--stop", "--", built(t, "churn.c"), megabytes,
                t.dir / "go", "rest")
    assert p.wait(60) == 0, p.text()


def check_lives_again(t, last):
    again = t.start("run", "--name", "c", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: len(ticks(again)) > 3)
    assert ticks(again)[0] == last + 1, (last, again.text())
    assert t.stop(again) == -signal.SIGTERM


def test_objects_in_every_format(t):
    """Save into object storage and restore from it, packed and plain; nothing stays behind."""
    objects = use_objects(t)
    for options in ((), ("--format", "plain"), ("--compression", "zstd")):
        last = saved(t, *options)
        assert (objects / "c.tar").exists() and not (objects / "c").exists()
        check_lives_again(t, last)
        t.chrek("verify", "c")
        t.chrek("delete", "c")
        assert not (objects / "c.tar").exists()
    assert not list((objects / "holds").iterdir())
    assert not os.listdir(t.env["TMPDIR"])


def test_objects_are_listed_and_shown(t):
    """ls, inspect, status and delete read what is in object storage."""
    use_objects(t)
    saved(t)
    (found,) = t.json("ls")
    assert found["id"] == "c" and found["usable"] and found["memory_bytes"] > 5_000_000
    shown = t.json("inspect", "c")
    assert shown["path"].startswith("object://") and shown["path"].endswith("/c.tar"), shown["path"]
    status = t.json("status")["store"]
    assert "object://" in str(status) and 1 in status.values(), status
    t.chrek("delete", "c")
    assert t.json("ls") == []


def test_objects_share_pages(t):
    """A second checkpoint of the same program brings only what has changed."""
    use_objects(t)
    p = t.start("run", "--name", "c", "--ready", "after:0.4", "--", "python3", "-c", COUNTER)
    wait_for("checkpoint", lambda: (t.store / "c.tar").exists())
    t.chrek("checkpoint", "c", "--id", "d")
    t.stop(p)
    sizes = {c["id"]: c["bytes"] for c in t.json("ls")}
    assert sizes["d"] < sizes["c"] / 2, sizes


def test_damaged_object_is_refused(t):
    """A bundle or a pack with a wrong byte: refused by name, and the program starts cold."""
    objects = use_objects(t)
    saved(t)
    (pack, *_) = [f for f in objects.glob("packs/*/*") if f.stat().st_size > 4096]
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.write_bytes(data)
    bad = t.chrek("verify", "c", check=False)
    assert bad.returncode == 4 and "memory is damaged" in bad.stderr, bad.stderr
    cold = t.start("run", "--name", "c", "--ready", "never", "--", "python3", "-c", COUNTER)
    wait_for("ticks", lambda: len(ticks(cold)) > 2)
    assert ticks(cold)[0] == 1 and "memory is damaged" in cold.text(), cold.text()
    t.stop(cold)
    bundle = objects / "c.tar"
    bundle.write_bytes(bundle.read_bytes()[:2000])
    bad = t.chrek("inspect", "c", check=False)
    assert bad.returncode == 4 and "'c' cannot be used" in bad.stderr, bad.stderr


def test_configured_storage_is_an_url(t):
    """`chrek configure --storage URL` is the default of every command; --store is the same."""
    use_objects(t)
    url = t.env.pop("CHREK_STORE")
    t.chrek("configure", "--storage", url)
    assert url in t.chrek("configure").stdout
    saved(t)
    assert t.json("ls")[0]["id"] == "c"
    assert t.json("ls", "--storage", url) == t.json("ls", "--store", url)
    bad = t.chrek("ls", "--store", "ftp://x/y", check=False)
    assert bad.returncode == 5 and "ftp://" in bad.stderr, bad.stderr


def test_copies_between_stores(t):
    """copy sends a checkpoint to another store, of a second one only what is new; both live there."""
    p = t.run_until_saved("c", "after:0.4", "python3", "-c", COUNTER)
    t.chrek("checkpoint", "c", "--id", "d")
    t.stop(p)
    url = f"object://{t.dir}/objects"
    (first,) = t.json("copy", t.store, url, "c")
    assert first["copied"] and not first["there"] and first["bytes"] > 10000, first
    (again,) = t.json("copy", t.store, url, "c")
    assert again["there"] and again["bytes"] == 0, again
    second = {c["id"]: c for c in t.json("copy", "--all", t.store, url)}
    assert second["c"]["there"] and second["d"]["bytes"] < first["bytes"] / 2, second
    assert second["d"]["packs_there"] > 0, second
    t.chrek("verify", "--store", url, "c", "d")
    t.chrek("copy", url, t.dir / "third", "d")
    copy = t.start("restore", "--store", t.dir / "third", "d")
    wait_for("ticks", lambda: len(ticks(copy)) > 2)
    t.stop(copy)
    missing = t.chrek("copy", t.store, url, "x", check=False)
    assert missing.returncode == 3 and "no checkpoint 'x'" in missing.stderr, missing.stderr
    nothing = t.chrek("copy", t.store, url, check=False)
    assert nothing.returncode == 2 and "--all" in nothing.stderr, nothing.stderr


def test_encrypted_in_objects(t):
    """An encrypted checkpoint is copied without its key, and lives with it, in object storage too."""
    t.chrek("key", "generate", t.dir / "key")
    key = ("--key-file", t.dir / "key")
    p = t.run_until_saved("c", "after:0.4", "python3", "-c", COUNTER,
                          options=["--stop", *map(str, key)])
    assert p.wait(60) == 0, p.text()
    url = f"object://{t.dir}/objects"
    t.chrek("copy", t.store, url, "c")
    objects = b"".join(f.read_bytes() for f in (t.dir / "objects").rglob("*") if f.is_file())
    assert b"chrekchrek" not in objects
    locked = t.chrek("restore", "--store", url, "c", check=False)
    assert locked.returncode == 125 and "no key" in locked.stderr, locked.stderr
    t.chrek("verify", "--store", url, *key, "c")
    copy = t.start("restore", "--store", url, *key, "c")
    wait_for("ticks", lambda: len(ticks(copy)) > 2)
    t.chrek("checkpoint", "--store", url, *key, "--id", "d", "c")
    t.stop(copy)
    t.chrek("verify", "--store", url, *key, "d")


def test_packs_of_objects_are_collected(t):
    """gc and delete remove from object storage what no checkpoint refers to, and nothing else."""
    objects = use_objects(t)
    saved(t)
    pack = next(objects.glob("packs/*/*"))
    garbage = pack.with_name(pack.name[:-4] + "0000")
    garbage.write_bytes(pack.read_bytes())
    t.chrek("gc")
    assert pack.exists() and not garbage.exists()
    t.chrek("verify", "c")
    t.chrek("delete", "c")
    t.chrek("gc")
    assert not list(objects.glob("packs/*/*"))


def test_cache_serves_restores(t):
    """With a cache a restore reads object storage once; prefetch fills it, configure names it."""
    objects = use_objects(t)
    cache = t.dir / "cache"
    saved(t)
    none = t.chrek("prefetch", "c", check=False)
    assert none.returncode == 2 and "--cache DIR" in none.stderr, none.stderr
    t.chrek("configure", "--cache", cache, "--cache-size", "64M")
    assert f"{cache}, up to 64.0 MiB" in t.chrek("configure").stdout
    (fetched,) = t.json("prefetch", "c")
    assert fetched["fetched"] and fetched["bytes"] > 10000, fetched
    blocks = sorted(p.name for p in cache.glob("??/*"))
    assert blocks and cache.stat().st_mode & 0o777 == 0o700
    # What was fetched is all that a restore needs of the packs: they may be away.
    packs = [p for p in objects.glob("packs/*/*") if p.is_file()]
    for pack in packs:
        pack.rename(t.dir / pack.name)
    for mode in ("full", "lazy"):
        p = t.start("restore", "--mode", mode, "c")
        wait_for("ticks", lambda p=p: p.poll() is not None or len(ticks(p)) > 3)
        assert len(ticks(p)) > 3, p.text()
        t.stop(p)
    assert sorted(p.name for p in cache.glob("??/*")) == blocks
    gone = t.chrek("verify", "c", check=False)  # looks at the storage itself
    assert gone.returncode == 4 and "is missing" in gone.stderr, gone.stderr
    bad = t.chrek("restore", "--cache", t.dir / "other", "c", check=False)
    assert bad.returncode == 125 and "is missing" in bad.stderr, bad.stderr
    for pack in packs:
        (t.dir / pack.name).rename(pack)
    for block in cache.glob("??/*"):
        block.write_bytes(block.read_bytes()[:-9] + b"x" * 9)
    p = t.start("restore", "c")
    wait_for("ticks", lambda: p.poll() is not None or len(ticks(p)) > 3)
    assert len(ticks(p)) > 3, p.text()
    t.stop(p)


def test_working_set_in_objects(t):
    """A lazy restore leaves its record beside the checkpoint; later ones begin with it, also by a cache."""
    objects = use_objects(t)
    saved_at_rest(t, 48)
    ended_well(restore(t, "lazy"))
    record = objects / "workingset/c"
    assert record.stat().st_size > 10 << 20
    assert t.json("inspect", "c")["stored"]["working_set_pages"] > (10 << 20) / 4096
    (t.dir / "go").unlink()
    p = t.start("restore", "--quiet", "c")
    wait_for("a pager", lambda: helpers(p).get("chrek-pager"))  # the default is workingset now
    (t.dir / "go").touch()
    ended_well(p)
    cache = t.dir / "cache"
    t.chrek("prefetch", "--cache", cache, "c")
    good = record.read_bytes()
    record.rename(t.dir / "record")
    record.write_bytes(good[:len(good) // 2] + bytes(len(good) // 2))  # damaged, it costs time only
    ended_well(restore(t, "workingset"))
    t.chrek("delete", "c")
    assert not record.exists()


def test_working_set_that_may_not_be_kept(t):
    """Where no record can be read or written a restore is as good without."""
    objects = use_objects(t)
    saved_at_rest(t, 32)
    (objects / "workingset").write_text("in the way")
    for mode in ("lazy", "workingset", "lazy"):
        ended_well(restore(t, mode))
    assert not os.listdir(t.env["TMPDIR"]), os.listdir(t.env["TMPDIR"])
