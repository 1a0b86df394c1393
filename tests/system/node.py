"""A node without a kubelet: a real containerd and runc, and pods made through CRI.

The client here is curl's HTTP/2 and a protobuf encoding of a page, on purpose not ours.
"""

import io
import json
import os
import pathlib
import signal
import subprocess
import tarfile
import uuid

from lib import WORKLOADS, Skip, program, wait_for

CONFIG = """
version = 2
root = "{dir}/root"
state = "{dir}/state"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
address = "{dir}/c.sock"
[ttrpc]
address = "{dir}/c.ttrpc"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "localhost/chrek/tiny:1"
disable_cgroup = true
disable_apparmor = true
restrict_oom_score_adj = true
stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{dir}/none"
conf_dir = "{dir}/none"
"""
# What a kubelet asks for.
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
IMAGE = "localhost/chrek/tiny:1"
# A container of the strictest kind: nobody in particular, no capabilities, the runtime's own filter of system calls.
UNPRIVILEGED = {1: {2: ["ALL"]}, 5: {1: 1000}, 11: True, 12: {1: 1000}, 15: {1: 0}}


# -- protobuf: {field: value}; dicts are messages, lists repeat, bytes stay --

def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def encode(fields):
    out = b""
    for number, value in fields.items():
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, (bool, int)):
                out += varint(number << 3) + varint(int(item))
                continue
            item = encode(item) if isinstance(item, dict) else item.encode() if isinstance(item, str) else item
            out += varint(number << 3 | 2) + varint(len(item)) + item
    return out


def decode(data):
    """{field: [values]}, of a message without 32 and 64 bit fields."""
    fields, at = {}, 0

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
    while at < len(data):
        key = number()
        if key & 7 == 0:
            value = number()
        else:
            size = number()
            value = data[at:at + size]
            at += size
        fields.setdefault(key >> 3, []).append(value)
    return fields


def pairs(values):
    return [{1: key, 2: value} for key, value in values.items()]


class Pod:
    def __init__(self, name, namespace, uid, sandbox):
        self.name, self.namespace, self.uid, self.sandbox = name, namespace, uid, sandbox
        self.containers = {}  # name -> id


class Node:
    """containerd, in a directory of the test's, for the test's life."""

    def __init__(self, t):
        self.t, self.pods = t, []
        self.dir = t.tmpfs("node")
        self.socket = self.dir / "c.sock"
        self.config = self.dir / "config.toml"
        self.config.write_text(CONFIG.format(dir=self.dir))
        self.log = self.dir / "containerd.log"
        self.containerd = None
        self.start()
        self.import_image(IMAGE, self.tiny())

    def start(self):
        with open(self.log, "ab") as out:
            self.containerd = subprocess.Popen([program("containerd"), "-c", self.config], stdout=out,
                                               stderr=subprocess.STDOUT, env=self.t.env, cwd=self.dir)
        program("runc")
        self.containerd.log, self.containerd.text = self.log, self.log.read_text
        wait_for("containerd", lambda: self.answers() or self.containerd.poll() is not None)
        assert self.containerd.poll() is None, self.log.read_text()[-3000:]

    def answers(self):
        try:
            return self.call("Version", {})
        except AssertionError:
            return None

    # -- CRI --

    def call(self, method, message, service="RuntimeService"):
        body = encode(message)
        done = subprocess.run(
            [program("curl"), "--silent", "--show-error", "--http2-prior-knowledge", "--unix-socket", self.socket,
             "--max-time", "60", "--data-binary", "@-", "--dump-header", self.dir / "headers",
             "-H", "content-type: application/grpc", "-H", "te: trailers",
             f"http://localhost/runtime.v1.{service}/{method}"],
            input=b"\0" + len(body).to_bytes(4, "big") + body, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        headers = (self.dir / "headers").read_text().lower()
        assert "grpc-status: 0" in headers, f"{method}: {headers}"
        return decode(done.stdout[5:])

    def import_image(self, name, archive):
        path = self.dir / "image.tar"
        path.write_bytes(archive)
        subprocess.run([program("ctr"), "-a", self.socket, "-n", "k8s.io", "images", "import", path],
                       check=True, capture_output=True, timeout=60)

    def tiny(self):
        """An image from scratch: one static program, a few files."""
        subprocess.run([program("cc", "gcc"), "-static", "-o", self.dir / "tiny", WORKLOADS / "tiny.c"],
                       check=True)
        layer = io.BytesIO()
        with tarfile.open(fileobj=layer, mode="w") as tar:
            for name, mode, content in (("bin/tiny", 0o755, (self.dir / "tiny").read_bytes()),
                                        ("etc/kept", 0o644, b"from the image\n"),
                                        ("etc/changed", 0o644, b"from the image\n"),
                                        ("etc/deleted", 0o644, b"from the image\n")):
                entry = tarfile.TarInfo(name)
                entry.mode, entry.size = mode, len(content)
                tar.addfile(entry, io.BytesIO(content))
            entry = tarfile.TarInfo("tmp")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        return image_archive(IMAGE, layer.getvalue(), ["/bin/tiny", "tick"])

    def pod(self, name, namespace="default", privileged=False):
        uid = str(uuid.uuid4())
        logs = self.dir / "logs" / uid
        logs.mkdir(parents=True)
        config = {1: {1: name, 2: uid, 3: namespace}, 3: str(logs), 4: {},
                  6: pairs({"io.kubernetes.pod.name": name, "io.kubernetes.pod.namespace": namespace,
                            "io.kubernetes.pod.uid": uid}),
                  8: {2: {1: {1: 2, 2: 1, 3: 0}, 6: privileged}}}  # network of the host, PIDs of the container
        answer = self.call("RunPodSandbox", {1: config})
        pod = Pod(name, namespace, uid, answer[1][0].decode())
        pod.config, pod.logs = config, logs
        self.pods.append(pod)
        return pod

    def container(self, pod, name, command, env=None, mounts=(), privileged=False, security=None):
        """security: further fields of a LinuxContainerSecurityContext."""
        config = {1: {1: name}, 2: {1: IMAGE}, 3: list(map(str, command)), 6: pairs(env or {}),
                  7: [{1: str(inside), 2: str(outside)} for outside, inside in mounts],
                  9: pairs({"io.kubernetes.container.name": name, "io.kubernetes.pod.name": pod.name,
                            "io.kubernetes.pod.namespace": pod.namespace, "io.kubernetes.pod.uid": pod.uid}),
                  11: f"{name}.log",
                  15: {2: {2: privileged, 3: {1: 2, 2: 1, 3: 0},
                           **({} if privileged else {13: MASKED, 14: READONLY}), **(security or {})}}}
        answer = self.call("CreateContainer", {1: pod.sandbox, 2: config, 3: pod.config})
        pod.containers[name] = answer[1][0].decode()
        self.call("StartContainer", {1: pod.containers[name]})
        return pod.containers[name]

    def status(self, container):
        answer = self.call("ContainerStatus", {1: container, 2: 1})
        info = {decode(pair)[1][0].decode(): decode(pair)[2][0].decode() for pair in answer.get(2, [])}
        return decode(answer[1][0]), json.loads(info["info"])

    def pid(self, container):
        return self.status(container)[1]["pid"]

    def output(self, pod, name):
        path = pod.logs / f"{name}.log"
        return path.read_text() if path.exists() else ""

    # -- the end --

    def close(self):
        try:
            for pod in self.pods:
                self.call("StopPodSandbox", {1: pod.sandbox})
                self.call("RemovePodSandbox", {1: pod.sandbox})
        finally:
            self.containerd.terminate()
            self.containerd.wait(30)
            self.kill_shims()

    def kill_shims(self):
        """Shims outlive containerd; ours name our socket."""
        for d in pathlib.Path("/proc").iterdir():
            try:
                command = (d / "cmdline").read_bytes() if d.name.isdigit() else b""
                if b"containerd-shim" in command and str(self.socket).encode() in command:
                    os.kill(int(d.name), signal.SIGKILL)
            except OSError:
                continue


def image_archive(name, layer, command):
    """What `docker save` writes of an image with one layer."""
    import hashlib
    digest = hashlib.sha256(layer).hexdigest()
    config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Entrypoint": command},
                         "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]}}).encode()
    files = {"config.json": config, "layer.tar": layer,
             "manifest.json": json.dumps([{"Config": "config.json", "RepoTags": [name],
                                           "Layers": ["layer.tar"]}]).encode()}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for path, content in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return out.getvalue()
