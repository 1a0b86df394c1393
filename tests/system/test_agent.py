"""chrek-agent on a node with a real containerd and runc, and an API server that is a double."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import urllib.request

from lib import ROOT, find, wait_for
from node import MASKED, READONLY, Node

sys.path.insert(0, str(ROOT / "tests/fakes"))
from kubeapi import KubeApi, Refused  # noqa: E402

AGENT = find("CHREK_AGENT", "build/plain/src/chrek-agent")
ENTRYPOINT = find("CHREK_ENTRYPOINT", "build/plain/src/restore-entrypoint")
LABELS = {"nvidia.com/checkpoint-source": "true", "nvidia.com/checkpoint-hash": "abc123"}
SIGNAL = "/checkpoint-signal/abc123.done"
ENV = {"DYN_CHECKPOINT_SIGNAL_FILE": SIGNAL, "DYN_CHECKPOINT_HASH": "abc123"}


class Setup:
    """A node, an API server, an agent."""

    def __init__(self, t):
        self.t, self.node, self.api, self.agent = t, Node(t), KubeApi(), None
        self.config = self.api.kubeconfig(t.dir / "kubeconfig")

    def start_agent(self, **env):
        log = self.t.dir / f"agent-{len(self.t.running)}.log"
        with open(log, "wb") as out:
            p = subprocess.Popen(
                [AGENT], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd=self.t.dir,
                env=dict(self.t.env, NODE_NAME="node-1", KUBECONFIG=str(self.config),
                         CHECKPOINT_DIR=str(self.t.store), CONTAINERD_SOCKET=str(self.node.socket),
                         LISTEN_ADDR="127.0.0.1:0", CHREK_CAPTURE_BACKOFF="200ms", **env))
        p.log, p.text = log, lambda: log.read_text(errors="replace")
        self.t.running.append(p)
        self.agent = p
        wait_for("the agent", lambda: "watching pods" in p.text() or p.poll() is not None)
        assert p.poll() is None, p.text()
        return p

    def stop_agent(self, sig=signal.SIGTERM):
        code = self.t.stop(self.agent, sig)
        self.agent = None
        return code

    def lines(self):
        return [json.loads(line) for line in self.agent.text().splitlines() if line.startswith("{")]

    def get(self, path):
        port = next(line["port"] for line in self.lines() if line["msg"] == "watching pods")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.read().decode()

    def run(self, name="worker", command=("/bin/tiny", "tick"), container="main", env=None, namespace="default",
            **more):
        pod = self.node.pod(name, namespace)
        self.node.container(pod, container, command, ENV if env is None else env, **more)
        wait_for("ticks", lambda: "tick 3" in self.node.output(pod, container))
        return pod

    def announce(self, pod, labels=None, ready=True, node="node-1", annotations=None):
        """The pod as a kubelet reports it."""
        return self.api.create("pods", {
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid,
                         "labels": LABELS if labels is None else labels, "annotations": annotations or {}},
            "spec": {"nodeName": node, "containers": [{"name": name} for name in pod.containers]},
            "status": {"phase": "Running", "podIP": "10.1.2.3",
                       "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
                       "containerStatuses": [
                           {"name": name, "containerID": f"containerd://{id_}",
                            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
                           for name, id_ in pod.containers.items()]}})

    def annotation(self, pod, key):
        found = self.api.get("pods", pod.namespace, pod.name)["metadata"].get("annotations") or {}
        return found.get(f"chrek.io/checkpoint-{key}")

    def wait_status(self, pod, status):
        wait_for(f"status {status}", lambda: self.annotation(pod, "status") == status
                 or self.agent.poll() is not None)
        assert self.agent.poll() is None, self.agent.text()

    def in_container(self, pod, path, container="main"):
        return f"/proc/{self.node.pid(pod.containers[container])}/root{path}"

    def events(self, reason):
        return [e for e in self.api.items("events") if e["reason"] == reason]

    def close(self):
        try:
            if self.agent:
                self.t.stop(self.agent)
        finally:
            self.api.close()
            self.node.close()


@contextlib.contextmanager
def setup(t):
    s = Setup(t)
    try:
        yield s
    finally:
        s.close()


def last_tick(text):
    return int(re.findall(r"tick (\d+)", text)[-1])


def test_label_to_checkpoint(t):
    """A labelled, ready pod is captured, told by its signal file, and runs on."""
    with setup(t) as s:
        volume = s.node.dir / "kubelet/pods/u/volumes/kubernetes.io~empty-dir/data"
        volume.mkdir(parents=True)
        pod = s.run(mounts=[(volume, "/data")])
        root = s.in_container(pod, "/")
        with open(root + "/etc/changed", "w", encoding="utf-8") as f:
            f.write("by the workload\n")
        os.unlink(root + "/etc/deleted")
        s.start_agent()
        s.announce(pod)
        s.wait_status(pod, "completed")
        signal_file = open(s.in_container(pod, SIGNAL), encoding="utf-8").read()
        assert re.fullmatch(
            r'\{\n  "checkpoint_id": "abc123",\n  "checkpoint_path": "' + re.escape(str(t.store)) + r'/abc123",\n'
            r'  "timestamp": "[^"]+Z",\n  "success": true\n\}', signal_file), signal_file
        stat = os.stat(s.in_container(pod, SIGNAL))
        assert stat.st_mode & 0o777 == 0o644, oct(stat.st_mode)
        done = json.loads((t.store / "abc123/checkpoint.done").read_text())
        assert done["success"] is True and done["checkpoint_path"] == str(t.store / "abc123")
        meta = json.loads((t.store / "abc123/metadata.json").read_text())
        assert (meta["source_node"], meta["source_pod_ip"], meta["pod_name"], meta["pod_namespace"],
                meta["container_id"], meta["image"], meta["pid"]) == \
            ("node-1", "10.1.2.3", "worker", "default", pod.containers["main"], "localhost/chrek/tiny:1",
             s.node.pid(pod.containers["main"])), meta
        mounts = {m["container_path"]: m for m in meta["mounts"]}
        assert (mounts["/data"]["volume_type"], mounts["/data"]["volume_name"], mounts["/data"]["oci_source"]) == \
            ("emptyDir", "data", str(volume)), mounts
        assert "/proc" not in mounts and "/dev" not in mounts and "/" not in mounts, mounts
        assert (meta["masked_paths"], meta["readonly_paths"]) == (MASKED, READONLY), meta
        assert "/data" in meta["bind_mount_dests"] and "/etc/hosts" in meta["bind_mount_dests"], meta
        outside = {n["type"]: n["is_external"] for n in meta["namespaces"]}
        assert outside["mnt"] and outside["ipc"] and not outside["net"] and len(outside) == 7, outside
        with tarfile.open(t.store / "abc123/rootfs-diff.tar") as tar:
            assert tar.extractfile("./etc/changed").read() == b"by the workload\n"
            assert "./etc/kept" not in tar.getnames()
        assert json.loads((t.store / "abc123/deleted-files.json").read_text()) == ["etc/deleted"]
        assert t.chrek("verify", "abc123").returncode == 0
        assert s.annotation(pod, "container") == pod.containers["main"]
        assert (s.annotation(pod, "id"), s.annotation(pod, "attempts")) == ("abc123", "1")
        for reason in ("CheckpointRequested", "CheckpointSucceeded"):
            event = wait_for(reason, lambda r=reason: s.events(r))[0]
            assert event["involvedObject"]["uid"] == pod.uid and event["type"] == "Normal", event
        before = last_tick(s.node.output(pod, "main"))
        wait_for("more ticks", lambda: last_tick(s.node.output(pod, "main")) > before + 3)
        assert json.loads(s.get("/health")) == {"status": "healthy", "node_name": "node-1"}
        assert 'chrek_captures_total{outcome="succeeded"} 1' in s.get("/metrics")
        assert s.stop_agent() == 0


def test_a_capture_that_fails(t):
    """Bounded tries, then a failed state and a signal file that says so; the workload goes on."""
    with setup(t) as s:
        pod = s.run()
        s.start_agent(CHREK_CRIU="/bin/false", CHREK_CAPTURE_TRIES="2")
        s.announce(pod)
        s.wait_status(pod, "failed")
        said = json.load(open(s.in_container(pod, SIGNAL), encoding="utf-8"))
        assert (said["success"], said["checkpoint_id"], said["checkpoint_path"]) == (False, "abc123", ""), said
        assert said["error"] and said["error"] == s.annotation(pod, "message"), said
        assert s.annotation(pod, "attempts") == "2" and s.annotation(pod, "id") is None
        wait_for("the events", lambda: s.events("CheckpointRetried") and s.events("CheckpointFailed"))
        assert all(e["type"] == "Warning" for e in s.events("CheckpointRetried") + s.events("CheckpointFailed"))
        assert 'outcome="failed"} 1' in s.get("/metrics") and 'outcome="retried"} 1' in s.get("/metrics")
        assert not [p for p in t.store.iterdir() if p.name.startswith("abc123")], list(t.store.iterdir())
        before = last_tick(s.node.output(pod, "main"))
        wait_for("more ticks", lambda: last_tick(s.node.output(pod, "main")) > before + 3)
        s.stop_agent()
        s.start_agent()  # one that could do it now: what has failed has failed
        wait_for("the list", lambda: "chrek_pods_watched 1" in s.get("/metrics"))
        assert s.annotation(pod, "attempts") == "2" and not (t.store / "abc123").exists()


def test_an_agent_that_is_killed(t):
    """Killed in the middle of a capture: the workload goes on, the next agent takes the work up, once."""
    slow = t.dir / "slow-criu"
    slow.write_text(f'#!/bin/sh\ntouch {t.dir}/began\nsleep 2\nexec {find("CHREK_CRIU", "build/criu/sbin/criu")} "$@"\n')
    slow.chmod(0o755)
    with setup(t) as s:
        pod = s.run()
        s.start_agent(CHREK_CRIU=str(slow))
        s.announce(pod)
        wait_for("a capture", lambda: (t.dir / "began").exists())
        assert s.annotation(pod, "status") == "in_progress"
        s.stop_agent(signal.SIGKILL)
        before = last_tick(s.node.output(pod, "main"))
        wait_for("more ticks", lambda: last_tick(s.node.output(pod, "main")) > before + 3)
        assert not (t.store / "abc123").exists()
        s.start_agent()
        s.wait_status(pod, "completed")
        assert s.annotation(pod, "attempts") == "2"
        assert json.load(open(s.in_container(pod, SIGNAL), encoding="utf-8"))["success"] is True
        wait_for("the event", lambda: s.events("CheckpointSucceeded"))
        made = os.stat(t.store / "abc123").st_ino
        for _ in range(2):  # it is done, whoever comes and whatever changes
            s.stop_agent()
            s.start_agent()
            s.api.change("pods", "default", pod.name, {"metadata": {"annotations": {"x": "y"}}})
            wait_for("the list", lambda: "chrek_pods_watched 1" in s.get("/metrics"))
        again = s.run("second")  # another pod with the same identity needs no other checkpoint
        s.announce(again)
        s.wait_status(again, "completed")
        assert json.load(open(s.in_container(again, SIGNAL), encoding="utf-8"))["success"] is True
        assert os.stat(t.store / "abc123").st_ino == made
        assert len(s.events("CheckpointSucceeded")) == 2 and 'outcome="succeeded"} 0' in s.get("/metrics")


def test_who_is_captured(t):
    """Only ready pods of the node that ask; by label or environment; a pod without a main container is refused."""
    with setup(t) as s:
        s.start_agent()
        unready, stranger = s.run("unready"), s.run("stranger")
        two = s.run("two", container="one")
        s.node.container(two, "other", ["/bin/tiny", "tick"], {})
        named = s.run("named", env={"DYN_CHECKPOINT_LOCATION": "/checkpoints/by-location"})
        s.announce(unready, ready=False)
        s.announce(stranger, node="node-2")
        s.announce(two)
        s.announce(named, labels={"nvidia.com/checkpoint-source": "true"})
        s.wait_status(named, "completed")
        assert (t.store / "by-location/checkpoint.done").exists()
        s.wait_status(two, "failed")
        assert "chrek.io/container" in s.annotation(two, "message"), s.annotation(two, "message")
        assert s.annotation(unready, "status") is None and s.annotation(stranger, "status") is None
        assert not (t.store / "abc123").exists()
        s.api.change("pods", "default", "unready",
                     {"status": {"conditions": [{"type": "Ready", "status": "True"}]}})
        s.wait_status(unready, "completed")
        assert s.annotation(unready, "id") == "abc123"


def test_an_api_server_with_bad_days(t):
    """Cut watches, forgotten versions, 429, 403 and a server that is away for a while: nothing is missed."""
    with setup(t) as s:
        s.start_agent()
        wait_for("a watch", lambda: s.api.watches)
        s.api.cut_watches()
        s.api.store.forget()
        s.api.refuse += [Refused(429, "slow down", headers={"Retry-After": "1"}), Refused(403, "not yet"),
                         Refused(503, "away")]
        pod = s.run()
        s.announce(pod)
        s.wait_status(pod, "completed")
        wait_for("a watch", lambda: s.api.watches)
        assert s.agent.poll() is None


def test_an_outcome_that_cannot_be_told_at_once(t):
    """A refused annotation is written later; the capture is not made again, and told of once."""
    with setup(t) as s:
        pod = s.run()
        s.start_agent()
        wait_for("a watch", lambda: s.api.watches)
        s.api.allowed = {("list", "pods"), ("watch", "pods"), ("patch", "pods"), ("create", "events")}
        s.announce(pod)
        wait_for("the begin", lambda: s.annotation(pod, "status") == "in_progress")
        s.api.allowed = s.api.allowed - {("patch", "pods")}
        wait_for("the refusal", lambda: "outcome not told" in s.agent.text())
        made = os.stat(t.store / "abc123").st_ino
        assert json.load(open(s.in_container(pod, SIGNAL), encoding="utf-8"))["success"] is True
        assert not s.events("CheckpointSucceeded")
        s.api.allowed = None
        s.wait_status(pod, "completed")
        wait_for("the event", lambda: s.events("CheckpointSucceeded"))
        assert len(s.events("CheckpointSucceeded")) == 1 and s.annotation(pod, "attempts") == "1"
        assert os.stat(t.store / "abc123").st_ino == made


def rights(path):
    """(verb, resource) of the rules in a manifest."""
    rules = re.findall(r"resources: \[([\w, ]+)\], verbs: \[([\w, ]+)\]", (ROOT / path).read_text())
    return {(verb, resource) for resources, verbs in rules
            for resource in resources.split(", ") for verb in verbs.split(", ")}


def test_rights_of_the_manifest(t):
    """The agent works with the rights that deploy/rbac.yaml gives it, and uses all of them."""
    with setup(t) as s:
        s.api.allowed = rights("deploy/rbac.yaml")
        pod = s.run()
        s.start_agent()
        s.announce(pod)
        s.wait_status(pod, "completed")
        wait_for("the event", lambda: s.events("CheckpointSucceeded"))
        used = {(verb, resource) for verb, resource, _ in s.api.requests}
        assert used == s.api.allowed, (used, s.api.allowed)
        assert all("fieldSelector=spec.nodeName%3Dnode-1" in path and "labelSelector=" in path
                   for verb, _, path in s.api.requests if verb in ("list", "watch"))


def test_one_namespace(t):
    """Restricted to a namespace the agent asks for nothing outside of it, and captures nothing there."""
    with setup(t) as s:
        s.api.allowed = rights("deploy/namespaced/rbac.yaml")
        s.api.create("namespaces", {"metadata": {"name": "mine"}})
        other, pod = s.run("other"), s.run("worker", namespace="mine")
        s.start_agent(RESTRICTED_NAMESPACE="mine")
        s.announce(other)
        s.announce(pod)
        s.wait_status(pod, "completed")
        wait_for("the event", lambda: s.events("CheckpointSucceeded"))
        assert s.annotation(other, "status") is None
        assert s.api.requests and all("/api/v1/namespaces/mine/" in path for _, _, path in s.api.requests)


def test_restore_by_the_entrypoint(t):
    """What the agent has captured continues in a container whose first process is restore-entrypoint."""
    criu = os.path.dirname(os.path.dirname(find("CHREK_CRIU", "build/criu/sbin/criu")))
    with setup(t) as s:
        volume = s.node.dir / "kubelet/pods/u/volumes/kubernetes.io~empty-dir/data"
        volume.mkdir(parents=True)  # the new pods do not have it
        pod = s.run(mounts=[(volume, "/data")])
        root = s.in_container(pod, "/")
        with open(root + "/etc/changed", "w", encoding="utf-8") as f:
            f.write("by the workload\n")
        os.unlink(root + "/etc/deleted")
        s.start_agent()
        s.announce(pod)
        s.wait_status(pod, "completed")
        s.stop_agent()
        last = last_tick(s.node.output(pod, "main"))
        for number in range(2):
            place = s.node.pod(f"restored-{number}", privileged=True)
            s.node.container(
                place, "main", ["/bin/restore-entrypoint", "/bin/tiny", "tick"], privileged=True,
                env={"DYN_CHECKPOINT_HASH": "abc123", "DYN_CHECKPOINT_PATH": "/checkpoints",
                     "DYN_RESTORE_MARKER_FILE": "/tmp/marker", "CRIU_WORK_DIR": "/tmp/work",
                     "CHREK_CRIU": "/criu/sbin/criu"},
                mounts=[(ENTRYPOINT, "/bin/restore-entrypoint"), (criu, "/criu"), (t.store, "/checkpoints")])
            text = wait_for("an end of the restore", lambda p=place: re.search(
                "Restore operation completed|Falling back", s.node.output(p, "main"))
                and s.node.output(p, "main"))
            assert "Restore operation completed" in text, text
            wait_for("ticks", lambda p=place: len(re.findall(r"tick \d+", s.node.output(p, "main"))) > 3)
            first = int(re.search(r"tick (\d+)", s.node.output(place, "main"))[1])
            assert 3 < first <= last + 1, (first, last)
            inside = s.in_container(place, "/")
            assert open(inside + "/etc/changed", encoding="utf-8").read() == "by the workload\n"
            assert open(inside + "/etc/kept", encoding="utf-8").read() == "from the image\n"
            assert not os.path.exists(inside + "/etc/deleted")
            assert open(inside + "/tmp/marker", encoding="utf-8").read() == "restored"
