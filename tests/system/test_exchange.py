"""Checkpoints for other programs and of them: export and import."""

import gzip
import hashlib
import io
import json
import re
import signal
import subprocess
import tarfile

from lib import wait_for

COUNTER = """
import random, time, zlib
ballast = random.Random(4).randbytes(3 << 20)
n = 0
while True:
    n += 1
    print('tick', n, zlib.crc32(ballast), flush=True)
    time.sleep(0.05)
"""


def ticks(p):
    return [(int(n), crc) for n, crc in re.findall(r"^tick (\d+) (\d+)\n", p.text(), re.M)]


def saved(t, *options):
    """Save the program as `c`; its last tick."""
    p = t.start("run", "--name", "c", "--ready", "log:tick 3", "--stop", *options, "--", "python3",
                "-c", COUNTER)
    assert p.wait(60) == 0, p.text()
    return ticks(p)[-1]


def check_goes_on(t, last, name, *options):
    p = t.start("restore", *options, name)
    wait_for("ticks", lambda: p.poll() is not None or len(ticks(p)) > 2)
    assert ticks(p) and ticks(p)[0] == (last[0] + 1, last[1]), (name, last, p.text())
    assert t.stop(p) == -signal.SIGTERM, p.text()


def members(path):
    """Names and contents of an archive, in order."""
    with tarfile.open(path) as archive:
        return [(m.name, archive.extractfile(m).read()) for m in archive if m.isfile()]


def write_archive(path, content, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in content:
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o640, 1700000000
            archive.addfile(info, io.BytesIO(data))


def test_exported_program_lives_again(t):
    """An export is an archive that other tools know; an import of it lives, in every mode."""
    last = saved(t)
    t.chrek("export", "c", t.dir / "c.tar")
    content = dict(members(t.dir / "c.tar"))
    assert {"config.dump", "spec.dump", "metadata.json", "checkpoint/inventory.img",
            "checkpoint/pages-1.img"} <= set(content), sorted(content)
    assert json.loads(content["config.dump"])["name"] == "c"
    assert json.loads(content["spec.dump"])["process"]["args"][0] == "python3"
    assert len(content["checkpoint/pages-1.img"]) > 3 << 20
    assert (t.dir / "c.tar").stat().st_mode & 0o777 == 0o600
    made = t.json("import", "--id", "d", t.dir / "c.tar")
    assert made["engine"] == "chrek" and made["memory_bytes"] > 3 << 20, made
    t.chrek("verify", "d")
    for mode in ("full", "workingset", "lazy"):
        check_goes_on(t, last, "d", "--mode", mode)
    names = sorted(p.name for p in (t.store / "d").iterdir())
    assert names == sorted(p.name for p in (t.store / "c").iterdir()), names
    again = t.chrek("export", "c", t.dir / "c.tar", check=False)
    assert again.returncode == 9 and "already there" in again.stderr, again.stderr
    t.chrek("export", "--replace", "--compress", "zstd", "c", t.dir / "c.tar")
    (t.dir / "photos").mkdir()
    (t.dir / "photos/1.jpg").write_text("dear")
    for options in ([], ["--format", "directory"], ["--image"]):
        foreign = t.chrek("export", "--replace", *options, "c", t.dir / "photos", check=False)
        assert foreign.returncode == 9 and "remove it yourself" in foreign.stderr, foreign.stderr
    assert (t.dir / "photos/1.jpg").read_text() == "dear"
    t.chrek("import", "--id", "e", "--format", "plain", t.dir / "c.tar")
    check_goes_on(t, last, "e")
    assert not list(t.dir.glob(".chrek-export-*"))


def test_log_of_a_dump_is_small_and_exported(t):
    """CRIU's log is kept compressed where CRIU has ended; an export has its text."""
    key = ("--key-file", t.dir / "key")
    t.chrek("key", "generate", t.dir / "key")
    p = t.run_until_saved("c", "after:0", "sleep", "1000")
    assert (t.store / "c/dump.log.zst").exists() and not (t.store / "c/dump.log").exists()
    t.chrek("checkpoint", *key, "--id", "e", "c")
    t.stop(p)
    t.chrek("export", "c", t.dir / "c.tar")
    t.chrek("export", *key, "e", t.dir / "e.tar")
    for name in ("c.tar", "e.tar"):
        content = {path.removeprefix("checkpoint/"): data for path, data in members(t.dir / name)}
        assert b"Dumping finished successfully" in content["dump.log"], name
        assert "dump.log.zst" not in content, name


def test_exported_directory_is_a_checkpoint(t):
    """A directory that is exported is a checkpoint directory; of a foreign one nothing is lost."""
    last = saved(t)
    t.chrek("export", "--format", "directory", "c", t.dir / "out")
    names = {p.name for p in (t.dir / "out").iterdir()}
    assert {"checkpoint.done", "metadata.json", "pages-1.img", "manifest"} <= names, names
    assert "memory" not in names
    t.chrek("verify", "--store", t.dir, "out")
    check_goes_on(t, last, "out", "--store", t.dir)
    # As the reference implementation writes it: without a manifest, with fields of its own.
    ours = json.loads((t.dir / "out/metadata.json").read_text())
    theirs = {k: v for k, v in ours.items() if k != "chrek"} | {"mounts": [{"container_path": "/x"}]}
    (t.dir / "out/metadata.json").write_text(json.dumps(theirs))
    (t.dir / "out/manifest").unlink()
    made = t.json("import", "--id", "r", t.dir / "out")
    assert made["engine"] == "chrek-reference", made
    check_goes_on(t, last, "r")
    t.chrek("export", "--format", "directory", "r", t.dir / "back")
    for p in (t.dir / "out").iterdir():
        assert (t.dir / "back" / p.name).read_bytes() == p.read_bytes(), p.name
    (t.dir / "out/checkpoint.done").write_text('{"success": false, "error": "no luck"}')
    bad = t.chrek("import", "--id", "x", t.dir / "out", check=False)
    assert bad.returncode == 2 and "no luck" in bad.stderr, bad.stderr


def test_encrypted_program_is_exported(t):
    """The export of an encrypted checkpoint is readable, its import can be encrypted again."""
    t.chrek("key", "generate", t.dir / "key")
    key = ("--key-file", t.dir / "key")
    last = saved(t, *map(str, key))
    locked = t.chrek("export", "c", t.dir / "c.tar", check=False)
    assert locked.returncode == 8 and "no key" in locked.stderr, locked.stderr
    assert not (t.dir / "c.tar").exists()
    t.chrek("export", *key, "c", t.dir / "c.tar")
    t.chrek("import", *key, "--id", "d", t.dir / "c.tar")
    assert t.json("ls", *key)[1]["encrypted"]
    check_goes_on(t, last, "d", *key)


def foreign(t, engine, mode="w"):
    """An archive as another engine writes it, around the images of a program of ours."""
    last = saved(t)
    t.chrek("export", "c", t.dir / "c.tar")
    images = [(n, d) for n, d in members(t.dir / "c.tar") if n.startswith("checkpoint/")]
    spec = {"ociVersion": "1.0.2", "process": {"args": ["web", "-x"], "cwd": "/srv"}}
    config = {"id": "ab" * 32, "name": "web_pod", "rootfsImageName": "docker.io/library/web:1",
              "checkpointedTime": "2026-01-31T12:34:56Z", "createdTime": "2026-01-30T00:00:00Z"}
    content = [("config.dump", json.dumps(config, indent=1).encode())]
    if engine == "podman":
        spec["annotations"] = {"io.container.manager": "libpod"}
        content += [("network.status", b"[]"), ("volumes/data-1.tar", b"volume" * 1000),
                    ("rootfs-diff.tar", b"diff"), ("deleted.files", b'[\n "a"\n]'),
                    ("artifacts", b"")]
    elif engine == "cri-o":
        spec["annotations"] = {"io.container.manager": "cri-o",
                               "io.kubernetes.pod.name": "pod", "io.kubernetes.pod.namespace": "ns"}
        content += [("bind.mounts", b"[]"), ("io.kubernetes.cri-o.LogPath", b"log\n")]
    else:
        content += [("status.dump", json.dumps({"metadata": {"name": "web"}, "labels": {
            "io.kubernetes.pod.name": "pod", "io.kubernetes.pod.namespace": "ns"}}).encode()),
                    ("status", b"{}"), ("container.log", b"hello\n"),
                    ("rootfs-diff.tar", gzip.compress(b"layer"))]
    content += [("spec.dump", json.dumps(spec).encode()), *images, ("stats-dump", b"\0stats")]
    path = t.dir / f"checkpoint-{engine}_2026-01-31T12:34:56Z.tar"
    write_archive(path, content, mode)
    return last, path, content


def check_comes_back(t, engine, mode="w"):
    last, path, content = foreign(t, engine, mode)
    made = t.json("import", path)
    assert made["engine"] == engine and made["id"] == path.name[:-4], made
    t.chrek("verify", made["id"])
    shown = t.json("inspect", made["id"])
    assert "docker.io/library/web:1" in json.dumps(shown), shown
    t.chrek("export", made["id"], t.dir / "back.tar")
    assert members(t.dir / "back.tar") == content
    with tarfile.open(t.dir / "back.tar") as archive:
        info = archive.getmember("config.dump")
        assert info.mode == 0o640 and info.mtime == 1700000000, (info.mode, info.mtime)
    check_goes_on(t, last, made["id"])


def test_podman_archive_comes_back(t):
    """An archive of Podman's, compressed by gzip: imported, restored, exported as it was."""
    check_comes_back(t, "podman", "w:gz")


def test_crio_archive_comes_back(t):
    """An archive of CRI-O's: imported, restored, exported as it was."""
    check_comes_back(t, "cri-o")


def test_containerd_archive_comes_back(t):
    """An archive of containerd's: imported, restored, exported as it was."""
    check_comes_back(t, "containerd")


def test_hostile_archives_are_refused(t):
    """Links, devices, climbing and absolute paths, bombs, doubles: refused by name, and no trace."""
    last, path, content = foreign(t, "containerd")
    good = members(path)

    def refused(what, said, code=4):
        bad = t.chrek("import", "--id", "x", what, check=False)
        assert bad.returncode == code and said in bad.stderr, (bad.returncode, bad.stderr)
        assert sorted(p.name for p in t.store.iterdir()) == before

    t.chrek("gc")
    before = sorted(p.name for p in t.store.iterdir())
    for name, said in (("../climbs", "'../climbs'"), ("/etc/absolute", "'/etc/absolute'"),
                       ("a/../../b", "bad name"), ("checkpoint/inventory.img", "twice"),
                       ("memory", "chrek copy")):
        write_archive(t.dir / "bad.tar", [*good, (name, b"x")])
        refused(t.dir / "bad.tar", said, 5 if name == "memory" else 4)
    for kind, target, said in ((tarfile.SYMTYPE, "/etc/passwd", "is a link"),
                               (tarfile.LNKTYPE, "config.dump", "is a link"),
                               (tarfile.CHRTYPE, "", "neither a file"),
                               (tarfile.FIFOTYPE, "", "neither a file")):
        write_archive(t.dir / "bad.tar", good)
        with tarfile.open(t.dir / "bad.tar", "a") as archive:
            info = tarfile.TarInfo("bad-member")
            info.type, info.linkname = kind, target
            archive.addfile(info)
        refused(t.dir / "bad.tar", said)
    with gzip.open(t.dir / "bomb.tar.gz", "wb") as bomb:
        info = tarfile.TarInfo("checkpoint/pages-9.img")
        info.size = 300 << 20
        bomb.write(info.tobuf())
        for _ in range(300):
            bomb.write(bytes(1 << 20))
    refused(t.dir / "bomb.tar.gz", "1000 times", 1)
    (t.dir / "bad.tar").write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    refused(t.dir / "bad.tar", "no whole tar archive")
    write_archive(t.dir / "bad.tar", [("config.dump", b"{}")])
    refused(t.dir / "bad.tar", "inventory.img")
    (t.dir / "tree").mkdir()
    (t.dir / "tree/inventory.img").symlink_to("/etc/passwd")
    refused(t.dir / "tree", "is a link")
    refused(t.dir / "absent", "absent", 3)
    check_goes_on(t, last, "c")


def test_checkpoint_image_has_every_annotation(t):
    """An OCI image of a checkpoint: blobs are what they are called, three engines know it."""
    saved(t)
    t.chrek("export", "--image", "--compress", "gzip", "--tag", "v1", "c", t.dir / "image")
    blobs = t.dir / "image/blobs/sha256"
    for blob in blobs.iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name

    def blob(descriptor):
        data = (blobs / descriptor["digest"].removeprefix("sha256:")).read_bytes()
        assert len(data) == descriptor["size"]
        return data

    (entry,) = json.loads((t.dir / "image/index.json").read_text())["manifests"]
    assert entry["annotations"]["org.opencontainers.image.ref.name"] == "v1"
    manifest = json.loads(blob(entry))
    notes = manifest["annotations"]
    for key in ("io.kubernetes.cri-o.annotations.checkpoint.name", "org.criu.checkpoint.engine.name",
                "org.criu.checkpoint.container.name", "io.podman.annotations.checkpoint.name"):
        assert notes[key], notes
    assert "io.podman.annotations.checkpoint.runtime.name" not in notes
    layer = gzip.decompress(blob(manifest["layers"][0]))
    config = json.loads(blob(manifest["config"]))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
    with tarfile.open(fileobj=io.BytesIO(layer)) as archive:
        assert "checkpoint/inventory.img" in archive.getnames()
    t.chrek("export", "--image", "--podman-runtime", "crun", "c", t.dir / "image.tar")
    subprocess.run(["tar", "-xf", t.dir / "image.tar", "-C", t.tmpfs("unpacked")], check=True)
    whole = json.loads((t.dir / "unpacked/index.json").read_text())["manifests"][0]
    text = (t.dir / "unpacked/blobs/sha256" / whole["digest"].removeprefix("sha256:")).read_text()
    assert json.loads(text)["annotations"]["io.podman.annotations.checkpoint.runtime.name"] == "crun"
