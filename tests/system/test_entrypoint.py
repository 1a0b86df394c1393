"""restore-entrypoint and smart-entrypoint.sh as PID 1 of a container: the contract's sections 9, 10."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import time

from lib import ROOT, WORKLOADS, find, program, wait_for

ENTRYPOINT = find("CHREK_ENTRYPOINT", "build/plain/src/restore-entrypoint")
SMART = str(ROOT / "src/entrypoint/smart-entrypoint.sh")
APP = """
import os, signal, sys, time
n = 0
def seen(number, frame):
    print('signal', number, flush=True)
    if number == signal.SIGUSR2:
        sys.exit(23)
for s in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
    signal.signal(s, seen)
while True:
    n += 1
    print('tick', n, os.getpid(), os.path.exists(sys.argv[1]), flush=True)
    time.sleep(0.05)
"""
# A container's PID 1 as small as can be: starts the application with a high PID and reaps.
INIT = """
import os, sys
open('/proc/sys/kernel/ns_last_pid', 'w').write('500')
pid = os.fork()
if pid == 0:
    os.setsid()
    os.dup2(os.open('/dev/null', os.O_RDONLY), 0)
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    os.wait()
"""


def container(t, *argv, env=None, name="c"):
    """A new PID and mount namespace, as a container has; output goes through a pipe to a file."""
    log = t.dir / f"{name}.txt"
    with open(log, "wb") as out:
        copier = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=out)
    p = subprocess.Popen([program("unshare"), "--pid", "--mount", "--fork", "--kill-child",
                          "--mount-proc", *map(str, argv)], stdin=subprocess.DEVNULL,
                         stdout=copier.stdin, stderr=subprocess.STDOUT, env=env or t.env, cwd="/")
    copier.stdin.close()

    def wait(timeout=60, ends=p.wait):
        code = ends(timeout)
        copier.wait(timeout)  # the last of the output is in the file, too
        return code

    p.wait = wait
    p.log, p.text = log, lambda: log.read_text(errors="replace")
    t.running.append(p)
    return p


def host_pid(t, word):
    for d in os.listdir("/proc"):
        try:
            command = open(f"/proc/{d}/cmdline", "rb").read() if d.isdigit() else b""
        except OSError:
            continue
        if command.startswith(b"python3\0") and b"tick" in command and word.encode() in command \
                and b"ns_last_pid" not in command:
            return int(d)
    return None


def ticks(p):
    return re.findall(r"^tick (\d+) (\d+) (\w+)$", p.text(), re.M)


def saved(t, marker, *options):
    """Save the application of a container, as a node's agent would; its last line."""
    p = container(t, "python3", "-c", INIT, "python3", "-c", APP, marker, name="original")
    wait_for("ticks", lambda: len(ticks(p)) > 2 or p.poll() is not None)
    t.chrek("checkpoint", "--stop", *options, "--id", "abc123", host_pid(t, str(marker)))
    last = ticks(p)[-1]
    p.kill()
    p.wait()
    return last


def strip(checkpoint):
    """Of a checkpoint in plain format what another implementation's would have."""
    metadata = json.loads((checkpoint / "metadata.json").read_text())
    del metadata["chrek"]
    (checkpoint / "metadata.json").write_text(json.dumps(metadata, indent=2))
    (checkpoint / "manifest").unlink()


def settings(t, **more):
    env = dict(t.env, DYN_CHECKPOINT_HASH="abc123", DYN_CHECKPOINT_PATH=str(t.store),
               DYN_RESTORE_MARKER_FILE=str(t.dir / "marker"), CRIU_WORK_DIR=str(t.dir / "work"),
               CRIU_LOG_DIR=str(t.dir / "logs"), CRIU_LOG_LEVEL="4")
    env.update(more)
    return env


def test_restores_as_pid_1(t):
    """Restores, writes the marker first, forwards signals, ends with the application's status."""
    last = saved(t, t.dir / "marker")
    for start in ((ENTRYPOINT,), (SMART, SMART)):
        (t.dir / "marker").unlink(missing_ok=True)
        env = settings(t)
        if start[0] == SMART:
            bin_dir = t.dir / "bin"
            bin_dir.mkdir()
            shutil.copy(SMART, bin_dir)
            os.symlink(ENTRYPOINT, bin_dir / "restore-entrypoint")
            start = (bin_dir / "smart-entrypoint.sh",) * 2
        p = container(t, *start, "echo", "cold", env=env)
        wait_for("ticks", lambda p=p: len(ticks(p)) > 2 or p.poll() is not None)
        assert p.poll() is None, p.text()
        first = ticks(p)[0]
        assert (int(first[0]), first[1], first[2]) == (int(last[0]) + 1, last[1], "True"), p.text()
        assert 'level=info msg="CRIU c.Restore completed successfully" duration=' in p.text()
        assert 'msg="=== Restore operation completed ==="' in p.text()
        assert (t.dir / "marker").read_text() == "restored"
        log = (t.dir / "work/restore.log").read_bytes()
        assert log and (t.store / "abc123/restore.log").read_bytes() == log
        assert pathlib.Path("/tmp/criu-restore.log").read_bytes() == log
        assert pathlib.Path("/tmp/restored.pid").read_text() == f"{first[1]}\n"
        if str(start[0]).endswith(".sh"):
            assert "[smart-entrypoint] CHECKPOINT RESTORE MODE" in p.text()
        inner = int(subprocess.run(["pgrep", "-P", str(p.pid)], capture_output=True, text=True,
                                   check=True).stdout.split()[0])
        for number in (signal.SIGHUP, signal.SIGUSR1):
            os.kill(inner, number)
            wait_for("the signal", lambda n=number: f"signal {int(n)}\n" in p.text())
        os.kill(inner, signal.SIGUSR2)
        assert p.wait(20) == 23, p.text()


def test_read_only_checkpoint(t):
    """A read-only checkpoint directory is enough, and nothing is written into it."""
    saved(t, t.dir / "marker")
    before = sorted(os.listdir(t.store / "abc123"))
    os.chmod(t.store / "abc123", 0o500)
    p = container(t, "sh", "-c", f"mount --bind {t.store} {t.store} && "
                  f"mount -o remount,bind,ro {t.store} && exec {ENTRYPOINT}", env=settings(t))
    wait_for("ticks", lambda: ticks(p) or p.poll() is not None)
    assert ticks(p), p.text()
    assert sorted(os.listdir(t.store / "abc123")) == before
    t.stop(p, signal.SIGKILL)


def test_failed_restore_starts_cold(t):
    """After a failed restore: log, log copy, no marker, the reason, and the original command."""
    saved(t, t.dir / "marker")
    pack = max((t.store / "packs").glob("*/*"), key=lambda f: f.stat().st_size)
    with open(pack, "r+b") as f:
        f.seek(pack.stat().st_size // 2)
        f.write(b"damage")
    p = container(t, ENTRYPOINT, "sh", "-c", "echo cold $0 $$; exit 7", "arg", env=settings(t))
    assert p.wait(30) == 7, p.text()
    assert "cold arg 1\n" in p.text() and "Falling back to cold start" in p.text(), p.text()
    assert "is damaged" in p.text() and not (t.dir / "marker").exists()
    kept = [n for n in (t.dir / "logs").iterdir() if re.fullmatch(r"restore-\d+\.log", n.name)]
    assert kept and all(stat.S_IMODE(n.stat().st_mode) == 0o644 for n in kept), kept
    assert not ticks(p)


def test_nothing_to_restore(t):
    """No checkpoint: arguments, DEFAULT_CMD, a single string; bad markers are no checkpoint."""
    cases = (
        (["echo", "a  b"], {}, "a  b\n"),
        (["echo one | tr a-z A-Z"], {}, "ONE\n"),
        ([], {"DEFAULT_CMD": "echo from default"}, "from default\n"),
        ([], {"DEFAULT_CMD": "x=1; echo $x$x"}, "11\n"),
    )
    for i, (argv, env, want) in enumerate(cases):
        p = container(t, ENTRYPOINT, *argv, env=settings(t, **env), name=f"n{i}")
        assert p.wait(20) == 0 and p.text().endswith(want), p.text()
    (t.store / "abc123").mkdir(parents=True)
    (t.store / "abc123/metadata.json").write_text("{}")
    for i, text in enumerate(('{"success": false, "error": "no"}', "2026-01-01T00:00:00Z", "")):
        (t.store / "abc123/checkpoint.done").write_text(text)
        for start in (ENTRYPOINT, SMART):
            p = container(t, start, "echo", "cold", env=settings(t), name=f"m{i}")
            assert p.wait(20) == 0 and p.text().endswith("cold\n"), p.text()
    p = container(t, ENTRYPOINT, "no-such-program", env=settings(t), name="x")
    assert p.wait(20) == 127


def test_waiting_and_trigger(t):
    """WAIT_FOR_CHECKPOINT waits for the trigger file; in vain it ends after its time."""
    p = container(t, ENTRYPOINT, "echo", "cold", env=settings(
        t, DYN_CHECKPOINT_HASH="", WAIT_FOR_CHECKPOINT="1", RESTORE_WAIT_TIMEOUT="1",
        RESTORE_TRIGGER=str(t.dir / "trigger")))
    begun = time.monotonic()
    assert p.wait(20) == 0 and p.text().endswith("cold\n") and time.monotonic() - begun > 0.9
    last = saved(t, t.dir / "marker")
    p = container(t, ENTRYPOINT, "echo", "cold", env=settings(
        t, DYN_CHECKPOINT_HASH="", WAIT_FOR_CHECKPOINT="true", RESTORE_TRIGGER=str(t.dir / "trigger")))
    time.sleep(0.5)
    assert "Waiting for checkpoint" in p.text() and p.poll() is None
    (t.dir / "trigger").write_text(f" {t.store}/abc123 \n")
    wait_for("ticks", lambda: ticks(p) or p.poll() is not None)
    assert ticks(p)[0][0] == str(int(last[0]) + 1), p.text()
    t.stop(p, signal.SIGKILL)


def test_embedded(t):
    """A checkpoint baked into the image counts without a marker, but not with a bad one."""
    last = saved(t, t.dir / "marker", "--format", "plain")
    shutil.copytree(t.store / "abc123", t.dir / "embedded")
    (t.dir / "embedded/checkpoint.done").unlink()
    env = settings(t, DYN_CHECKPOINT_HASH="", EMBEDDED_CHECKPOINT_PATH=str(t.dir / "embedded"))
    p = container(t, ENTRYPOINT, env=env)
    wait_for("ticks", lambda: ticks(p) or p.poll() is not None)
    assert ticks(p)[0][0] == str(int(last[0]) + 1), p.text()
    t.stop(p, signal.SIGKILL)
    (t.dir / "embedded/checkpoint.done").write_text('{"success": false}')
    p = container(t, ENTRYPOINT, "echo", "cold", env=env)
    assert p.wait(20) == 0 and p.text().endswith("cold\n"), p.text()


def test_bad_settings_are_named(t):
    """A number or a mode that is none is warned of by name, not ignored silently."""
    p = container(t, ENTRYPOINT, "echo", "cold", env=settings(t, CRIU_TIMEOUT="soon",
                                                              CHREK_RESTORE_MODE="quick"))
    assert p.wait(20) == 0 and p.text().endswith("cold\n"), p.text()
    assert "name=CRIU_TIMEOUT value=soon" in p.text(), p.text()
    assert "name=CHREK_RESTORE_MODE value=quick" in p.text(), p.text()


def test_lazy_pages(t):
    """CRIU_LAZY_PAGES brings the program back before its memory; a second life uses the record."""
    last = saved(t, t.dir / "marker")
    for more in ({"CRIU_LAZY_PAGES": "1"}, {"CHREK_RESTORE_MODE": "workingset"}):
        p = container(t, ENTRYPOINT, env=settings(t, **more))
        wait_for("ticks", lambda p=p: len(ticks(p)) > 20 or p.poll() is not None)
        assert ticks(p)[0][0] == str(int(last[0]) + 1), p.text()
        t.stop(p, signal.SIGKILL)


def test_empty_root(t):
    """The entrypoint needs nothing but itself: it starts a static program in an empty root."""
    root = t.dir / "root"
    for d in ("proc", "bin"):
        (root / d).mkdir(parents=True)
    shutil.copy(ENTRYPOINT, root / "bin/restore-entrypoint")
    (t.dir / "hello.c").write_text('#include <unistd.h>\nint main(void) '
                                   '{ return write(1, "hello\\n", 6) != 6; }\n')
    subprocess.run([program("cc", "gcc"), "-static", "-o", root / "bin/hello", t.dir / "hello.c"],
                   check=True)
    done = subprocess.run(["chroot", root, "/bin/restore-entrypoint", "/bin/hello"], text=True,
                          capture_output=True, timeout=20, check=True)
    assert done.stdout.endswith("hello\n"), done.stdout


def test_smart_script_in_every_shell(t):
    """smart-entrypoint.sh decides alike in dash, bash and busybox."""
    shells = [s.split() for s in ("dash", "bash --posix", "busybox sh") if shutil.which(s.split()[0])]
    assert shells
    good = t.store / "good"
    good.mkdir(parents=True)
    (good / "checkpoint.done").write_text('{\n  "checkpoint_id": "good",\n  "success": true\n}')
    bin_dir = t.dir / "bin"
    bin_dir.mkdir()
    shutil.copy(SMART, bin_dir)
    fake = bin_dir / "restore-entrypoint"
    fake.write_text("#!/bin/sh\necho restore \"$@\"\n")
    fake.chmod(0o755)
    for shell in shells:
        for hash_, want in (("good", "restore a b\n"), ("bad", "cold a b\n"), ("", "cold a b\n")):
            done = subprocess.run([*shell, bin_dir / "smart-entrypoint.sh", "/smart-entrypoint.sh",
                                   *(["a", "b"] if want[0] == "r" else ["echo", "cold", "a", "b"])],
                                  env=settings(t, DYN_CHECKPOINT_HASH=hash_), capture_output=True,
                                  text=True, timeout=20, check=True)
            assert done.stdout == want, (shell, hash_, done)
            assert all(line.startswith("[smart-entrypoint] ") for line in done.stderr.splitlines())
        none = subprocess.run([*shell, bin_dir / "smart-entrypoint.sh"], env=t.env, text=True,
                              capture_output=True, timeout=20, check=False)
        assert none.returncode == 1
        assert "ERROR: No checkpoint to restore and no command provided" in none.stderr


def smart(t, *argv, **env):
    """What smart-entrypoint.sh does, the restore entrypoint being one that tells what it is given."""
    bin_dir = t.dir / "bin"
    if not bin_dir.exists():
        bin_dir.mkdir()
        shutil.copy(SMART, bin_dir)
        (bin_dir / "restore-entrypoint").write_text("#!/bin/sh\necho restore \"$@\"\n")
        (bin_dir / "restore-entrypoint").chmod(0o755)
    clean = {"PATH": os.environ["PATH"], "EMBEDDED_CHECKPOINT_PATH": str(t.dir / "embedded"),
             "RESTORE_TRIGGER": str(t.dir / "trigger"), "DYN_CHECKPOINT_PATH": str(t.store),
             "CHREK_AGENT_SOCKET": "", **env}
    return subprocess.run([bin_dir / "smart-entrypoint.sh", *argv], env=clean, capture_output=True,
                          text=True, timeout=20, check=True)


def test_smart_script_looks_everywhere(t):
    """Waiting, embedded, trigger file, the agent's socket: each leads to the restore entrypoint."""
    good = t.store / "good"
    good.mkdir(parents=True)
    (good / "checkpoint.done").write_text('{"success": true}')
    cold = ("echo", "cold")
    assert smart(t, *cold).stdout == "cold\n"
    for value in ("1", "true", "TRUE", "Yes", "on"):
        assert smart(t, *cold, WAIT_FOR_CHECKPOINT=value).stdout == "restore echo cold\n", value
    for value in ("0", "false", "", "2", "maybe"):
        assert smart(t, *cold, WAIT_FOR_CHECKPOINT=value).stdout == "cold\n", value
    for text in (f"{good}", f"{good}\n", f" \t{good} \n", f"\n\n{good}\n", f"{good}\r\n", f"{good}/\n"):
        (t.dir / "trigger").write_text(text)
        done = smart(t, *cold)
        assert done.stdout == "restore echo cold\n" and "(restore trigger)" in done.stderr, repr(text)
    for text in ("", "\n \n", f"{t.store}/none", f"{good} and more"):
        (t.dir / "trigger").write_text(text)
        assert smart(t, *cold).stdout == "cold\n", repr(text)
    blank = t.store / "with a blank"
    good.rename(blank)
    (t.dir / "trigger").write_text(f"{blank}\n")
    assert smart(t, *cold).stdout == "restore echo cold\n"
    (t.dir / "trigger").unlink()
    (t.dir / "embedded").mkdir()
    (t.dir / "embedded/metadata.json").write_text("{}")
    assert "embedded in the image" in smart(t, *cold).stderr
    (t.dir / "embedded/checkpoint.done").write_text('{"success": false}')
    assert smart(t, *cold).stdout == "cold\n"


def test_smart_script_says_what_it_does(t):
    """The contract's words, the agent's socket, a command line in one string, and tracing."""
    good = t.store / "good"
    good.mkdir(parents=True)
    (good / "checkpoint.done").write_text('{"success": true}')
    says = smart(t, "a", DYN_CHECKPOINT_HASH="good").stderr.splitlines()
    assert says == ["[smart-entrypoint] Checkpoint found: good (checkpoint.done marker present)",
                    "[smart-entrypoint] CHECKPOINT RESTORE MODE"], says
    done = smart(t, "echo one | tr a-z A-Z")
    assert done.stdout == "ONE\n" and done.stderr.splitlines() == [
        "[smart-entrypoint] COLD START MODE", "[smart-entrypoint] No checkpoint to restore",
        "[smart-entrypoint] Executing command: echo one | tr a-z A-Z"], done
    assert "Incomplete or failed checkpoint" in smart(t, "true", DYN_CHECKPOINT_HASH="good/..").stderr
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        agent.bind(str(t.dir / "agent.sock"))
        for path, want in ((str(t.dir / "agent.sock"), "restore true\n"), ("", "")):
            assert smart(t, "true", DYN_CHECKPOINT_HASH="other", CHREK_AGENT_SOCKET=path).stdout == want
    assert "+ " in smart(t, "true", DEBUG="1").stderr


# A root file system of its own: an overlay over the machine's, as a runtime makes one of an image.
OVERLAY = """
mkdir {dir}/upper {dir}/work {dir}/merged
cp -a {lower} {dir}/lower
cd {dir}
mount -t overlay overlay -o lowerdir={layer}:/,upperdir={dir}/upper,workdir={dir}/work {dir}/merged
cd {dir}/merged && mkdir -p tmp/old && mount --rbind /dev dev && mount -t proc proc proc
mount --bind {shared} {inner}
pivot_root . tmp/old && cd / && umount -l /tmp/old
exec "$@"
"""


def overlay(t, name, *argv, env=None, layer=None):
    """A container on an overlay: its /image/... comes from a lower layer of the test's own."""
    layers = t.tmpfs(f"layers-{name}")
    script = OVERLAY.format(dir=layers, lower=t.dir / "image", layer=layer or f"{layers}/lower",
                            shared=t.dir, inner=str(t.dir)[1:])
    return container(t, "sh", "-ec", script, "sh", *argv, env=env, name=name)


def test_changed_files_of_the_root(t):
    """Files that the workload changed, added and deleted are so in the restored container, too."""
    image = t.dir / "image/image"
    image.mkdir(parents=True)
    (image / "changed").write_text("old")
    (image / "deleted").write_text("old")
    (image / "kept").write_text("old")
    script = "import os\n" \
             "os.remove('/image/deleted'); open('/image/changed', 'w').write('new')\n" \
             "open('/image/added', 'w').write('new')\n" + APP
    p = overlay(t, "first", "python3", "-c", INIT, "python3", "-c", script, t.dir / "marker")
    wait_for("ticks", lambda: len(ticks(p)) > 2 or p.poll() is not None)
    assert p.poll() is None, p.text()
    t.chrek("checkpoint", "--stop", "--id", "abc123", host_pid(t, str(t.dir / "marker")))
    p.kill()
    p.wait()
    meta = json.loads((t.store / "abc123/metadata.json").read_text())
    assert meta["has_rootfs_diff"] and meta["has_deleted_files"], meta
    deleted = json.loads((t.store / "abc123/deleted-files.json").read_text())
    assert "image/deleted" in deleted, deleted
    names = subprocess.run(["tar", "tf", t.store / "abc123/rootfs-diff.tar"], capture_output=True,
                           text=True, check=True).stdout.split()
    assert "./image/changed" in names and "./image/added" in names and "./image/kept" not in names
    # The marker is written when the files are as they were saved, before the processes are.
    look = f"{ENTRYPOINT} & until [ -e {t.dir}/marker ]; do sleep 0.1; done; cd /image; grep . *; wait"
    again = overlay(t, "second", "sh", "-c", look, env=settings(t))
    wait_for("the files", lambda: "kept:old" in again.text() or again.poll() is not None)
    wait_for("ticks", lambda: ticks(again) or again.poll() is not None)
    assert "added:new\nchanged:new\nkept:old\n" in again.text(), again.text()
    assert "deleted" not in again.text().split("added:new")[1] and ticks(again), again.text()
    t.stop(again, signal.SIGKILL)


def test_a_directory_made_anew_hides_the_images(t):
    """Also of a layer whose path is relative to a directory that only the runtime knew."""
    (t.dir / "image/image/dir").mkdir(parents=True)
    (t.dir / "image/image/dir/hidden").write_text("old")
    script = "import shutil\n" \
             "shutil.rmtree('/image/dir'); os.mkdir('/image/dir'); open('/image/dir/new', 'w').close()\n"
    for name, layer in (("absolute", None), ("relative", "lower")):
        p = overlay(t, name, "python3", "-c", INIT, "python3", "-c", "import os\n" + script + APP,
                    t.dir / "marker", layer=layer)
        wait_for("ticks", lambda p=p: len(ticks(p)) > 2 or p.poll() is not None)
        t.chrek("checkpoint", "--stop", "--replace", "--id", "abc123", host_pid(t, str(t.dir / "marker")))
        p.kill()
        p.wait()
        meta = json.loads((t.store / "abc123/metadata.json").read_text())
        assert meta["has_deleted_files"] == (layer is None), meta
        (t.dir / "marker").unlink(missing_ok=True)
        look = f"{ENTRYPOINT} & until [ -e {t.dir}/marker ]; do sleep 0.1; done; ls /image/dir; wait"
        again = overlay(t, f"{name}-again", "sh", "-c", look, env=settings(t))
        wait_for("ticks", lambda p=again: ticks(p) or p.poll() is not None)
        wait_for("the files", lambda p=again: "new\n" in p.text() or p.poll() is not None)
        assert ticks(again) and "hidden" not in again.text().splitlines(), again.text()
        t.stop(again, signal.SIGKILL)


def bare_root(t, compiler, libraries=()):
    """A root file system with CRIU, our entrypoint, and one program: nothing else, no shell."""
    root = t.dir / "root"
    for d in ("proc", "dev", "tmp", "bin", "lib", "usr/local/sbin", "usr/local/lib/chrek"):
        (root / d).mkdir(parents=True)
    os.mknod(root / "dev/null", 0o20666, os.makedev(1, 3))
    shutil.copy(ENTRYPOINT, root / "bin/restore-entrypoint")
    criu = os.path.dirname(os.path.dirname(find("CHREK_CRIU", "build/criu/sbin/criu")))
    shutil.copytree(criu, root / "usr/local/lib/chrek/criu", symlinks=True)
    os.symlink("../lib/chrek/criu/sbin/criu", root / "usr/local/sbin/criu")
    for library in libraries:
        shutil.copy(library, root / "lib")
    subprocess.run([*compiler, "-o", root / "bin/tiny", WORKLOADS / "tiny.c"], check=True)
    enter = t.dir / "enter"
    subprocess.run([program("cc", "gcc"), "-o", enter, WORKLOADS / "tiny.c"], check=True)
    return root, enter


def bare_ticks(p):
    return [int(n) for n in re.findall(r"^tick (\d+)$", p.text(), re.M)]


def overlay_of(t, root, name):
    """A writable layer of its own over a root file system, as a runtime makes one."""
    layers = t.tmpfs(f"layers-{name}")
    merged = t.dir / f"merged-{name}"
    for d in (layers / "upper", layers / "work", merged):
        d.mkdir()
    subprocess.run(["mount", "-t", "overlay", "chrek-test", "-o", f"lowerdir={root},"
                    f"upperdir={layers}/upper,workdir={layers}/work", merged], check=True)
    t.mounts.append(merged)
    return merged


def restores_in_a_bare_root(t, compiler, libraries=()):
    root, enter = bare_root(t, compiler, libraries)
    p = container(t, enter, "enter", overlay_of(t, root, "first"), "/bin/tiny", "init", "/bin/tiny",
                  "tick", name="original")
    wait_for("ticks", lambda: len(bare_ticks(p)) > 2 or p.poll() is not None)
    assert p.poll() is None, p.text()
    t.chrek("checkpoint", "--stop", "--id", "abc123", children(children(p.pid)[0])[0])
    last = bare_ticks(p)[-1]
    p.kill()
    p.wait()
    env = settings(t, DYN_CHECKPOINT_PATH="/checkpoints", DYN_RESTORE_MARKER_FILE="/tmp/marker",
                   CRIU_WORK_DIR="/tmp/work", CRIU_LOG_DIR="/tmp/logs")
    env.pop("CHREK_CRIU", None)
    for name in ("second", "third"):
        merged = overlay_of(t, root, name)
        shutil.copytree(t.store, merged / "checkpoints")
        p = container(t, enter, "enter", merged, "/bin/restore-entrypoint", env=env)
        wait_for("ticks", lambda p=p: bare_ticks(p) or p.poll() is not None)
        assert bare_ticks(p)[:1] == [last + 1], p.text()
        os.kill(children(p.pid)[0], signal.SIGUSR1)
        wait_for("the signal", lambda p=p: "signal 10" in p.text())
        os.kill(children(p.pid)[0], signal.SIGUSR2)
        assert p.wait(20) == 23, p.text()


def children(pid):
    out = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in out.split()]


def test_distroless(t):
    """A static program in a root with nothing else in it: restored, signalled, ended, twice."""
    restores_in_a_bare_root(t, [program("cc", "gcc"), "-static"])


def test_alpine(t):
    """A program of the musl libc in a root with no other libc but CRIU's own."""
    restores_in_a_bare_root(t, [program("musl-gcc")], ["/lib/ld-musl-x86_64.so.1"])


def criu_at_work(p):
    """CRIU's PID once it has made the root of the tree, which has CRIU's command line still."""
    try:
        found = [int(pid) for entrypoint in children(p.pid) for pid in
                 pathlib.Path(f"/proc/{entrypoint}/task/{entrypoint}/children").read_text().split()
                 if pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[-3:-2] == [b"swrk"]]
    except OSError:  # one of them has ended meanwhile
        return None
    return found[0] if len(found) > 1 else None


TERMINAL = """
import os, pty, sys
open('/proc/sys/kernel/ns_last_pid', 'w').write('500')
pid, master = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    os.write(1, os.read(master, 4096))
"""
OWN_TERMINALS = "mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts && " \
                "mount --bind /dev/pts/ptmx /dev/ptmx && exec \"$@\""


def test_output_to_a_terminal_goes_on(t):
    """A program saved on a terminal writes on after a restore, to its end."""
    p = container(t, "sh", "-c", OWN_TERMINALS, "sh", "python3", "-c", TERMINAL, "python3", "-c", APP,
                  t.dir / "marker", name="original")
    wait_for("ticks", lambda: "tick 3 " in p.text() or p.poll() is not None)
    t.chrek("checkpoint", "--stop", "--id", "abc123", host_pid(t, str(t.dir / "marker")))
    p.kill()
    p.wait()
    streams = json.loads((t.store / "abc123/metadata.json").read_text())["chrek"]["streams"]
    assert [s["kind"] for s in streams] == ["tty"] * 3, streams
    p = container(t, "sh", "-c", OWN_TERMINALS, "sh", ENTRYPOINT, "echo", "cold", env=settings(t))
    wait_for("ticks", lambda: p.text().count("tick ") > 5 or p.poll() is not None)
    assert p.poll() is None, p.text()
    os.kill(children(p.pid)[0], signal.SIGUSR1)
    wait_for("the signal", lambda: "signal 10" in p.text())
    os.kill(children(p.pid)[0], signal.SIGUSR2)
    assert p.wait(20) == 23 and "signal 12" in p.text(), p.text()


def test_refused_checkpoint_changes_nothing(t):
    """A checkpoint for another CPU is refused before any file of the container is touched."""
    image = t.dir / "image/image"
    image.mkdir(parents=True)
    (image / "changed").write_text("old")
    script = "open('/image/changed', 'w').write('new')\n" + APP
    p = overlay(t, "first", "python3", "-c", INIT, "python3", "-c", script, t.dir / "marker")
    wait_for("ticks", lambda: len(ticks(p)) > 2 or p.poll() is not None)
    t.chrek("checkpoint", "--stop", "--id", "abc123", host_pid(t, str(t.dir / "marker")))
    p.kill()
    p.wait()
    cpu = pathlib.Path("/proc/cpuinfo").read_text()
    (t.dir / "cpuinfo").write_text(re.sub(r"(?m)^(flags|Features)(\s*):.*", r"\1\2: none", cpu))
    (t.dir / "work").mkdir()
    (t.dir / "work/restore.log").write_text("a log of yesterday")
    p = overlay(t, "second", "sh", "-c", f"mount --bind {t.dir}/cpuinfo /proc/cpuinfo && exec {ENTRYPOINT} "
                "cat /image/changed", env=settings(t))
    assert p.wait(30) == 0 and p.text().endswith("old"), p.text()
    assert "which this one lacks" in p.text() and "yesterday" not in p.text(), p.text()


def test_without_criu_nothing_is_waited_for(t):
    """No CRIU, or one that cannot be executed: the command starts at once, and is told so."""
    (t.dir / "criu").write_text("no program")
    (t.dir / "criu").chmod(0o755)
    for criu in (t.dir / "none", t.dir / "criu"):
        p = container(t, ENTRYPOINT, "echo", "cold", env=settings(t, CHREK_CRIU=str(criu), WAIT_FOR_CHECKPOINT="1"))
        assert p.wait(20) == 0 and p.text().endswith("cold\n"), p.text()
        assert "Nothing can be restored" in p.text() and "Waiting" not in p.text(), p.text()


def test_cold_start_does_not_ask_criu(t):
    """Where there is nothing to restore, nor to wait for, CRIU is not even started."""
    (t.dir / "criu").write_text(f"#!/bin/sh\ntouch {t.dir}/asked\nexit 1\n")
    (t.dir / "criu").chmod(0o755)
    for wait, asked in (("0", False), ("1", True)):
        p = container(t, ENTRYPOINT, "echo", "cold",
                      env=settings(t, CHREK_CRIU=str(t.dir / "criu"), WAIT_FOR_CHECKPOINT=wait))
        assert p.wait(20) == 0 and p.text().endswith("cold\n"), p.text()
        assert (t.dir / "asked").exists() == asked, p.text()


def test_no_marker_beside_a_cold_start(t):
    """The marker of an earlier life is removed when there is nothing to restore any more."""
    (t.dir / "marker").write_text("restored")
    p = container(t, ENTRYPOINT, "echo", "cold", env=settings(t))
    assert p.wait(20) == 0 and not (t.dir / "marker").exists(), p.text()


def test_sigterm_while_waiting(t):
    """Waiting for a checkpoint, and the pause for debugging, end with SIGTERM as a program would."""
    saved(t, t.dir / "marker")
    (t.store / "abc123/pstree.img").write_bytes(b"damage")
    for env, words in (({"DYN_CHECKPOINT_HASH": "none", "WAIT_FOR_CHECKPOINT": "1"}, "Waiting for checkpoint"),
                       ({"DEBUG": "1"}, "keeping the container")):
        p = container(t, ENTRYPOINT, "echo", "cold", env=settings(t, **env))
        wait_for("the pause", lambda p=p, w=words: w in p.text() or p.poll() is not None)
        os.kill(children(p.pid)[0], signal.SIGTERM)
        assert p.wait(10) == 143 and "cold\n" not in p.text(), p.text()


def test_broken_off_restore_leaves_nothing_beside_the_cold_start(t):
    """CRIU is killed, or too slow, half way: the cold start runs alone, with what was there before."""
    saved(t, t.dir / "marker", "--format", "plain")
    strip(t.store / "abc123")
    pages = t.store / "abc123/pages-1.img"  # the tree's root waits for them for ever
    pages.unlink()
    os.mkfifo(pages)
    sibling = "import os, sys, time\n" \
              "if os.fork() == 0: os.execvp('sleep', ['sleep', '1000'])\n" \
              "os.execv(sys.argv[1], sys.argv[1:])"
    for why, seconds in (("CRIU was killed by signal 9", "0"), ("did not answer in time", "1")):
        p = container(t, "python3", "-c", sibling, ENTRYPOINT, "sh", "-c",
                      "for d in /proc/[0-9]*; do cat $d/comm; done", env=settings(t, CRIU_TIMEOUT=seconds))
        if seconds == "0":
            os.kill(wait_for("CRIU", lambda p=p: criu_at_work(p)), signal.SIGKILL)
        assert p.wait(30) == 0 and why in p.text(), p.text()
        after = p.text().rsplit("Executing command", 1)[1].splitlines()[1:]
        assert sorted(after) == ["sh", "sleep"], after


def test_a_pid_that_is_taken(t):
    """A process has the PID that the tree needs: the reason names it, and the command starts cold."""
    saved(t, t.dir / "marker")
    taker = "import os, sys, time\n" \
            "open('/proc/sys/kernel/ns_last_pid', 'w').write('500')\n" \
            "if os.fork() == 0: time.sleep(1000)\n" \
            "os.execv(sys.argv[1], sys.argv[1:])"
    p = container(t, "python3", "-c", taker, ENTRYPOINT, "echo", "cold", env=settings(t))
    assert p.wait(30) == 0 and p.text().endswith("cold\n"), p.text()
    assert "a PID that the tree needs is in use" in p.text(), p.text()


def test_deduplication_keeps_the_checkpoint(t):
    """CRIU_AUTO_DEDUP restores, and leaves every byte where it is: it can be restored again."""
    for form, says in (("packed", "holds each page once already"), ("plain", "is not applied")):
        last = saved(t, t.dir / "marker", "--replace", "--format", form)
        for _ in range(2):
            p = container(t, ENTRYPOINT,
                          env=settings(t, CRIU_AUTO_DEDUP="1", CRIU_SKIP_IN_FLIGHT="1"))
            wait_for("ticks", lambda p=p: len(ticks(p)) > 2 or p.poll() is not None)
            assert f"tick {int(last[0]) + 2} " in p.text() and says in p.text(), p.text()
            assert "skip-in-flight\n" in (t.dir / "work/restore-criu.conf").read_text()
            t.stop(p, signal.SIGKILL)
            assert "whole" in t.chrek("verify", "abc123").stdout


def test_debugging_a_failed_restore(t):
    """DEBUG=1 keeps the container after a failed restore, with its log, before the cold start."""
    saved(t, t.dir / "marker")
    (t.store / "abc123/pstree.img").write_bytes(b"damage")
    p = container(t, ENTRYPOINT, "echo", "started", env=settings(t, DEBUG="1"))
    wait_for("the pause", lambda: "DEBUG is set" in p.text() or p.poll() is not None)
    assert p.poll() is None and "cannot be used" in p.text(), p.text()
    assert "started" not in p.text() and "cold start" not in p.text(), p.text()
    t.stop(p, signal.SIGKILL)


def test_encrypted_and_signed_with_keys_of_a_mounted_secret(t):
    """The right keys restore; a wrong one, none, and a stranger's signature are a cold start with the reason."""
    for name in ("wrong", "secret"):
        (t.dir / name).mkdir()
        t.chrek("key", "generate", t.dir / name / "key")
    for name in ("signer", "stranger"):
        t.chrek("key", "generate", "--sign", t.dir / name)
    last = saved(t, t.dir / "marker", "--key-file", t.dir / "secret", "--sign-key", t.dir / "signer")
    key, trust = {"CHREK_KEY_FILE": str(t.dir / "secret")}, {"CHREK_TRUST_KEY": str(t.dir / "signer.pub")}
    p = container(t, ENTRYPOINT, "echo", "cold", env=settings(t, **key, **trust, CHREK_REQUIRE_SIGNATURE="1"))
    wait_for("ticks", lambda: len(ticks(p)) > 2 or p.poll() is not None)
    assert ticks(p) and int(ticks(p)[0][0]) > int(last[0]) and ticks(p)[0][1] == last[1], p.text()
    p.kill()
    p.wait()
    for env, words in (({}, "no key"), ({"CHREK_KEY_FILE": str(t.dir / "wrong")}, "wrong key"),
                       ({**key, "CHREK_TRUST_KEY": str(t.dir / "stranger.pub")}, "nobody here trusts"),
                       ({**key, "CHREK_REQUIRE_SIGNATURE": "1"}, "no trust key")):
        (t.dir / "marker").unlink(missing_ok=True)
        p = container(t, ENTRYPOINT, "echo", "cold", env=settings(t, **env))
        assert p.wait() == 0 and "cold" in p.text().splitlines() and words in p.text(), p.text()
