"""Checkpoints as the reference implementation makes them: CRIU with everything external, GNU tar."""

import json
import os
import signal
import subprocess

from lib import find, program, wait_for
from test_entrypoint import APP, ENTRYPOINT, OVERLAY, children, container, settings, ticks

# The application changes its root file system first, and never writes again.
CHANGES = """
import os
os.remove('/image/deleted')
os.remove('/image/removed')
os.remove('/image/current/file')
os.rmdir('/image/current')
os.symlink('v2', '/image/current')
open('/image/changed', 'w').write('new')
"""


def pod(t, name, *argv, env=None, before=""):
    """A container with a network namespace of its own, too."""
    layers = t.tmpfs(f"layers-{name}")
    script = OVERLAY.format(dir=layers, lower=t.dir / "image", layer=f"{layers}/lower", shared=t.dir,
                            inner=str(t.dir)[1:])
    script = script.replace('exec "$@"', before + '\nexec "$@"')
    return container(t, program("unshare"), "--net", "--ipc", "--uts", "sh", "-ec",
                     "ip link set lo up\n" + script, "sh", *argv, env=env, name=name)


def dump(t, pid, checkpoint):
    """CRIU as the reference's agent runs it."""
    checkpoint.mkdir(parents=True)
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as f:
        mounts = [line.split()[4] for line in f]
    external = [word for path in mounts for word in ("--external", f"mnt[{path}]:{path}")]
    net = os.stat(f"/proc/{pid}/ns/net").st_ino
    criu = find("CHREK_CRIU", "build/criu/sbin/criu")
    done = subprocess.run(
        [criu, "dump", "--tree", str(pid), "--images-dir", checkpoint, "--log-file", "dump.log", "-v4",
         "--root", f"/proc/{pid}/root", "--leave-running", "--shell-job", "--tcp-close", "--file-locks",
         "--ext-unix-sk", "--link-remap", "--manage-cgroups=ignore", "--enable-external-masters", *external,
         "--external", f"net[{net}]:extNetNs"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr + (checkpoint / "dump.log").read_text()[-3000:]


def finish(t, checkpoint, pid, upper):
    """The archive, metadata.json and the marker, as the reference writes them."""
    subprocess.run(["tar", "--xattrs", "-C", upper, "-cf", checkpoint / "rootfs-diff.tar", "."], check=True)
    names = subprocess.run(["tar", "tvf", checkpoint / "rootfs-diff.tar"], capture_output=True, text=True,
                           check=True).stdout
    assert "./image/deleted" in names and "\nc" in names, names  # the whiteouts are in it
    metadata = {"checkpoint_id": "abc123", "created_at": "2026-01-01T00:00:00Z", "source_node": "n",
                "container_id": "c", "pod_name": "p", "pod_namespace": "ns", "image": "i", "pid": pid,
                "rootfs_diff_path": "rootfs-diff.tar", "upper_dir": str(upper), "has_rootfs_diff": True,
                "has_deleted_files": False,
                "mounts": [{"container_path": "/data/volume", "host_path": "/kubelet/pods/x", "volume_type": "emptyDir",
                            "volume_name": "data", "fs_type": "ext4", "read_only": False}],
                "masked_paths": ["/proc/kcore"], "readonly_paths": ["/proc/sys"],
                "bind_mount_dests": ["/bound"], "namespaces": [], "criu_options": {"tcp_close": True}}
    (checkpoint / "metadata.json").write_text(json.dumps(metadata, indent=2))
    (checkpoint / "checkpoint.done").write_text(
        json.dumps({"checkpoint_id": "abc123", "checkpoint_path": str(checkpoint), "success": True}, indent=2))


def test_a_checkpoint_of_the_reference_goes_on_with_output_files_and_without_the_jobs_volumes(t):
    """Network, mounts, streams and whiteouts of a checkpoint as the reference makes it; two lives of it."""
    image = t.dir / "image/image"
    (image / "current").mkdir(parents=True)
    for name in ("changed", "deleted", "removed", "current/file"):
        (image / name).write_text("old")
    # Volumes that only the job has, one of them with a blank in its name.
    volumes = "\n".join(f"mkdir -p '/{d}'; mount -t tmpfs chrek-test '/{d}'" for d in ("data/volume", "bound"))
    p = pod(t, "first", "setsid", "python3", "-c", CHANGES + APP, t.dir / "marker", before=volumes)
    wait_for("ticks", lambda: len(ticks(p)) > 2 or p.poll() is not None)
    assert p.poll() is None, p.text()
    pid = children(p.pid)[0]
    checkpoint = t.store / "abc123"
    dump(t, pid, checkpoint)
    last = ticks(p)[-1]
    p.kill()
    p.wait()
    finish(t, checkpoint, pid, t.dir / "layers-first/upper")
    for name in ("second", "third"):
        # The directories that the volumes were mounted on are of the runtime, not of the image.
        script = "rm -rf /data /bound; mkdir '/mounted here' /bound; " \
                 "mount -t tmpfs chrek-test '/mounted here'"
        again = pod(t, name, "sh", "-c", f"{script}; cd /image; {ENTRYPOINT} & "
                    f"until [ -e {t.dir}/marker ]; do sleep 0.1; done; ls -F; cat changed; echo; wait",
                    env=settings(t))
        wait_for("ticks", lambda p=again: len(ticks(p)) > 2 or p.poll() is not None)
        first = ticks(again)[0] if ticks(again) else None
        assert first and int(last[0]) - 1 <= int(first[0]) <= int(last[0]) + 1, again.text()[-5000:]
        wait_for("the files", lambda p=again: "new\n" in p.text())
        assert "changed\ncurrent@\n" in again.text() and "removed" not in again.text(), again.text()
        t.stop(again, signal.SIGKILL)
        (t.dir / "marker").unlink()
