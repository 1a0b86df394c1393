"""Stores as people meet them: mistyped, shared with other things, encrypted in parts, full, counted."""

import json
import os

from lib import wait_for


def said(p, code, *words):
    assert p.returncode == code, (p.returncode, p.stdout, p.stderr)
    for word in words:
        assert word in p.stdout + p.stderr, (word, p.stdout, p.stderr)


def chrek(t, *argv, env=None):
    return t.chrek(*argv, check=False, env=env or t.env)


def save(t, name, *options, store=None):
    chrek_options = ["--store", store] if store else []
    t.chrek("run", "--name", name, "--ready", "after:0", "--stop", *chrek_options, *options, "--", "sleep", "1000")


def make_key(t, name):
    t.chrek("key", "generate", t.dir / name)
    return t.dir / name


def test_what_others_keep_in_a_store_is_never_touched(t):
    """A directory that is no checkpoint is not listed, deleted or replaced, by no command."""
    thesis, photo = t.store / "thesis/t.tex", t.store / "photos/1.jpg"
    for file in (thesis, photo):
        file.parent.mkdir(parents=True)
        file.write_text("years of work")
    assert t.json("ls") == []
    said(chrek(t, "delete", "thesis"), 3, "left alone")
    said(chrek(t, "inspect", "photos"), 3, "left alone")
    p = t.start("run", "--name", "photos", "--ready", "after:0", "--", "sleep", "1000")
    wait_for("the refusal", lambda: "left alone" in p.text())
    said(chrek(t, "checkpoint", "photos", "--replace"), 2, "left alone", "choose another id")
    said(chrek(t, "checkpoint", "photos", "--id", "thesis"), 2, "left alone")
    t.chrek("checkpoint", "photos", "--id", "web")
    t.stop(p)
    t.chrek("gc", "--keep-within", "1ms")
    assert t.json("ls") == []
    assert thesis.read_text() == photo.read_text() == "years of work"


def test_a_mistyped_store_is_no_empty_one(t):
    """Readers say that there is none, and make none; the default store may be unused."""
    typo, other = t.dir / "typo", t.dir / "other"
    for argv in (["ls"], ["gc"], ["verify", "--all"], ["delete", "web"], ["inspect", "web"], ["key", "list"],
                 ["export", "web", t.dir / "x"]):
        said(chrek(t, *argv, "--store", typo), 3, "there is no store", "makes it")
    said(chrek(t, "copy", "--all", typo, other), 3, "there is no store")
    save(t, "web")
    said(chrek(t, "verify", "--all", "--repair", "--from", typo), 3, "there is no store")
    said(chrek(t, "ls", "--store", f"object://{typo}"), 3, "there is no store")
    assert not typo.exists() and not other.exists()
    said(chrek(t, "ls", "--store", "object://typo"), 2, "relative")
    said(chrek(t, "ls", "--store", "file://typo"), 2, "relative")
    said(chrek(t, "ls", "--store", "ftp://x"), 5, "s3://")


def test_a_mixed_store_is_copied_and_an_encrypted_one_warns(t):
    """--all copies readable and encrypted ones; later readable ones take --unencrypted, and the hint names it."""
    key, backup = make_key(t, "key"), t.dir / "backup"
    save(t, "a")
    p = chrek(t, "run", "--name", "b", "--ready", "after:0", "--stop", "--key-file", key, "--", "sleep", "1000")
    said(p, 0, "first encrypted checkpoint")
    p = chrek(t, "run", "--name", "c", "--ready", "after:0", "--stop", "--key-file", key, "--", "sleep", "1000")
    assert "first encrypted" not in p.stderr, p.stderr
    save(t, "z", "--unencrypted")
    copied = t.json("copy", "--all", t.store, backup)
    assert [c["copied"] for c in copied] == [True] * 4, copied
    save(t, "new", "--unencrypted")
    p = chrek(t, "copy", t.store, backup, "new")
    said(p, 8, "it is readable", "give --unencrypted")
    assert "--key-file" not in p.stderr, p.stderr
    t.chrek("copy", "--unencrypted", t.store, backup, "new")
    t.chrek("verify", "--all", "--store", backup, "--key-file", key)


def test_verify_never_calls_whole_what_it_has_not_read(t):
    """One id or all of them: without the key an encrypted checkpoint is not verified."""
    key = make_key(t, "key")
    save(t, "plain")
    save(t, "sealed", "--key-file", key)
    for argv in (["sealed"], ["--all"]):
        said(chrek(t, "verify", *argv), 8, "no key")
        said(chrek(t, "verify", *argv, "--key-file", key), 0, "sealed\twhole")
    every = json.loads(chrek(t, "verify", "--all", "--json").stdout)
    assert {c["id"]: c["whole"] for c in every["checkpoints"]} == {"plain": True, "sealed": False}
    assert all(p["whole"] for p in every["packs"]), every


def damage(store):
    for pack in (store / "packs").glob("*/*"):
        with open(pack, "r+b") as f:
            f.seek(pack.stat().st_size // 2)
            f.write(b"damaged" * 4)


def test_verify_says_who_is_damaged(t):
    """Each by its name, in words too, not only in JSON; the advice once."""
    for name in ("a", "b"):
        t.chrek("run", "--name", name, "--ready", "log:ready", "--stop", "--", "python3", "-c",
                "import os, time; x = os.urandom(1 << 20); print('ready', flush=True); time.sleep(1000)")
    damage(t.store)
    for argv in (["a", "b"], ["--all"]):
        p = chrek(t, "verify", *argv)
        said(p, 4, "error: 'a': memory is damaged", "error: 'b': memory is damaged", "--repair --from")
        assert p.stderr.count("chrek: hint:") == 1, p.stderr
    empty = t.dir / "empty"
    empty.mkdir()
    save(t, "other", store=empty)
    said(chrek(t, "verify", "a", "--repair", "--from", empty), 3, "'a'")


def test_a_dry_run_counts_what_the_run_does(t):
    """gc -n says what goes, packs included; --keep-last 0 is a mistake."""
    for name in ("a", "b", "c"):
        t.chrek("run", "--name", name, "--ready", "after:1", "--stop", "--", "python3", "-c",
                "import os, time; x = os.urandom(1 << 20); time.sleep(1000)")
    said(chrek(t, "gc", "--keep-last", "0"), 2, "would delete every checkpoint")
    dry = t.json("gc", "--keep-last", "1", "--dry-run")
    done = t.json("gc", "--keep-last", "1")
    assert dry.pop("dry_run") and not done.pop("dry_run")
    assert dry == done and done["packs_removed"] > 0, (dry, done)


def test_the_quota_is_shown_where_it_is_set(t):
    """configure speaks of the store that is used, also by CHREK_STORE, and the error tells what would be."""
    save(t, "web")
    said(chrek(t, "configure", "--quota", "100M"), 0, "quota    100 MiB", str(t.store))
    assert (t.store / ".quota").read_text() == f"{100 << 20}\n"
    said(chrek(t, "configure"), 0, "quota    100 MiB", "CHREK_STORE")
    t.chrek("configure", "--quota", "1K")
    p = chrek(t, "run", "--name", "big", "--ready", "after:0", "--", "true")
    said(chrek(t, "configure"), 0, "quota    1.0 KiB")
    p = t.start("run", "--name", "big", "--ready", "after:0", "--", "sleep", "1000")
    wait_for("the refusal", lambda: "quota" in p.text())
    assert "would hold" in p.text() and "more than its quota of 1.0 KiB" in p.text(), p.text()
    t.stop(p)


def test_hints_fit(t):
    """What is missing is named, with what helps against that."""
    key = make_key(t, "key")
    before = key.read_bytes()
    p = chrek(t, "key", "generate", key)
    said(p, 9, "already there", "another name")
    assert "--replace" not in p.stderr and key.read_bytes() == before
    said(chrek(t, "key", "generate", "/nonexistent/k"), 3, "make its directory first")
    assert not os.path.exists("/nonexistent")
    save(t, "web")
    said(chrek(t, "checkpoint", "1", "--key-file", "/nonexistent"), 3, "chrek key generate")
    said(chrek(t, "ls", "--trust-key", "/nonexistent"), 3, "chrek key generate")
    said(chrek(t, "doctor", "4194000"), 3, "ps -e")
    said(chrek(t, "checkpoint", "4194000"), 3, "ps -e")
    said(chrek(t, "copy", "--all", t.store, "/proc/x"), 3, "no directory can be made")
    said(chrek(t, "run", "--ready", "foo", "--name", "x", "--", "true"), 2, "never")
    (t.store / "web/manifest").write_text("x")
    said(chrek(t, "verify", "web"), 4, "--repair --from")


def test_a_second_rotation_says_that_there_was_nothing_to_do(t):
    """The old key opens nothing any more; that the rotation may be repeated is no success of it."""
    old, new = make_key(t, "old"), make_key(t, "new")
    save(t, "web", "--key-file", old)
    said(chrek(t, "key", "rotate", "--key-file", old, "--new-key-file", new), 0, "1 data key wrapped anew")
    said(chrek(t, "key", "rotate", "--key-file", old, "--new-key-file", new), 0, "nothing to do")
