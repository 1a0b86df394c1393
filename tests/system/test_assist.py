"""Restores by the node's agent: containers without any privileges, on a real containerd and runc."""

import array
import contextlib
import json
import os
import pathlib
import re
import resource
import signal
import socket
import subprocess
import time

from lib import Skip, wait_for
from node import UNPRIVILEGED
from test_agent import ENTRYPOINT, LABELS, Setup, last_tick

DOOR = "/run/chrek-agent"


class Door(Setup):
    """With a socket for restores, and containers that ask there."""

    def __init__(self, t):
        super().__init__(t)
        self.door = t.dir / "door"
        self.door.mkdir()

    def start_agent(self, **env):
        return super().start_agent(CHREK_AGENT_SOCKET=str(self.door / "agent.sock"), **env)

    def capture(self, name="worker", namespace="default", **more):
        """A checkpoint abc123 of a container that ticks; its last tick by then."""
        pod = self.run(name, namespace=namespace, **more)
        self.announce(pod)
        self.wait_status(pod, "completed")
        return pod

    def ask(self, name, namespace="default", command=("/bin/tiny", "tick"), env=None, mounts=(), security=None):
        """A container whose command is restore-entrypoint."""
        place = self.node.pod(name, namespace)
        self.announce(place, labels={})
        self.node.container(
            place, "main", ["/bin/restore-entrypoint", *command],
            env={"DYN_CHECKPOINT_HASH": "abc123", **(env or {})},
            mounts=[(ENTRYPOINT, "/bin/restore-entrypoint"), (self.door, DOOR), *mounts],
            security=UNPRIVILEGED if security is None else security)
        return place

    def restore_notes(self, pod):
        """What the pod's annotations say of a restore."""
        found = self.api.get("pods", pod.namespace, pod.name)["metadata"].get("annotations") or {}
        return {key[17:]: value for key, value in found.items() if key.startswith("chrek.io/restore-")}

    def outcome(self, place):
        """What it says once it runs in one way or the other."""
        return wait_for("an end of the restore", lambda: re.search(
            "Restore operation completed|Falling back", self.node.output(place, "main"))
            and self.node.output(place, "main"))

    def exit_code(self, place):
        """Of a container that has ended; None while it runs."""
        state, _ = self.node.status(place.containers["main"])
        return state.get(7, [0])[0] if state[3][0] == 2 else None

    def status_of(self, place):
        """/proc/PID/status of the restored program."""
        first = self.node.pid(place.containers["main"])
        with open(f"/proc/{first}/task/{first}/children", encoding="utf-8") as f:
            children = f.read().split()
        assert len(children) == 1, children
        with open(f"/proc/{children[0]}/status", encoding="utf-8") as f:
            return int(children[0]), dict(line.rstrip("\n").split(":\t", 1) for line in f if ":\t" in line)


@contextlib.contextmanager
def door(t):
    s = Door(t)
    try:
        yield s
    finally:
        s.close()


def test_without_privileges(t):
    """User 1000 without capabilities and with the runtime's filter gets its program back, with these rights."""
    with door(t) as s:
        s.start_agent()
        pod = s.capture(security=UNPRIVILEGED)
        last = last_tick(s.node.output(pod, "main"))
        for number in range(2):
            place = s.ask(f"restored-{number}")
            text = s.outcome(place)
            assert "Restore operation completed" in text, text + s.agent.text()
            wait_for("ticks", lambda p=place: len(re.findall(r"tick \d+", s.node.output(p, "main"))) > 3)
            first = int(re.search(r"tick (\d+)", s.node.output(place, "main"))[1])
            assert 3 < first <= last + 1, (first, last)
            pid, status = s.status_of(place)
            assert status["Uid"].split() == ["1000"] * 4 and status["CapEff"] == "0" * 16, status
            assert status["NoNewPrivs"] == "1" and status["Seccomp"] == "2", status
            assert pid != s.node.pid(place.containers["main"])
        os.kill(s.node.pid(place.containers["main"]), signal.SIGUSR2)  # which is passed on
        assert wait_for("its end", lambda: s.exit_code(place)) == 23


def cold(s, place, reason):
    """It says why, and has started from the beginning, alone."""
    text = s.outcome(place)
    assert "Falling back to cold start" in text and re.search(reason, text), text + s.agent.text()
    wait_for("ticks", lambda: "tick 3" in s.node.output(place, "main"))
    assert re.search(r"tick (\d+)", s.node.output(place, "main"))[1] == "1", s.node.output(place, "main")
    first = s.node.pid(place.containers["main"])
    assert descendants(first) == [], descendants(first)


def descendants(pid):
    found = []
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                found += [child, *descendants(child)]
    return found


def test_who_may_not(t):
    """Another namespace has no such checkpoint; what would have more rights than the pod is not let run."""
    with door(t) as s:
        s.start_agent()
        s.api.create("namespaces", {"metadata": {"name": "other"}})
        s.capture()  # of root with the usual capabilities
        cold(s, s.ask("stranger", namespace="other"), "no checkpoint 'abc123' of a pod in namespace 'other'")
        cold(s, s.ask("nobody"), "it runs as user 0, and this container as user 1000")
        weaker = {1: {2: ["CHOWN"]}}
        cold(s, s.ask("weaker", security=weaker), r"capabilities \(\w+: 0x1\) that this container does not have")
        cold(s, s.ask("nnp", security={11: True}), "allowPrivilegeEscalation")
        cold(s, s.ask("filtered", security={15: {1: 0}}), "seccompProfile")
        assert "Restore operation completed" in s.outcome(s.ask("equal", security={}))
        metrics = s.get("/metrics")
        assert 'chrek_restores_total{outcome="succeeded"} 1' in metrics, metrics
        assert 'chrek_restores_total{outcome="failed"} 4' in metrics, metrics
        events = s.events("RestoreFailed")
        assert len(events) == 4 and events[0]["type"] == "Warning", events
        assert len(s.events("RestoreSucceeded")) == 1
        noted = {pod.name: s.restore_notes(pod) for pod in s.node.pods}
        assert noted["equal"].keys() == {"status", "id", "container"} and noted["equal"]["status"] == "completed"
        assert noted["nobody"]["status"] == "failed" and "runAsUser" in noted["nobody"]["message"], noted
        assert noted["stranger"] == {}, noted


def ask_door(path, pidfd):
    """What the agent answers to a request of ours."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sk:
        sk.settimeout(30)
        sk.connect(str(path))
        fds = array.array("i", [pidfd, 0, 1, 2])
        sk.sendmsg([b'{"type": "restore", "id": "abc123"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
        return json.loads(sk.recv(65536))


def test_waiting_for_a_checkpoint(t):
    """WAIT_FOR_CHECKPOINT asks the agent again until it has the checkpoint, or the time is up."""
    with door(t) as s:
        s.start_agent()
        vain = s.ask("vain", env={"WAIT_FOR_CHECKPOINT": "1", "RESTORE_WAIT_TIMEOUT": "1"})
        cold(s, vain, "no checkpoint 'abc123'")
        early = s.ask("early", env={"WAIT_FOR_CHECKPOINT": "1"})
        wait_for("the pause", lambda: "Waiting for checkpoint" in s.node.output(early, "main"))
        s.capture(security=UNPRIVILEGED)
        assert "Restore operation completed" in s.outcome(early), s.agent.text()
        wait_for("its note", lambda: s.restore_notes(early).get("status"))  # written after the container was told
        assert not s.events("RestoreFailed") and s.restore_notes(early)["status"] == "completed"


def test_forged_callers(t):
    """Who is no container's first process, or says that it is somebody else, gets nothing."""
    with door(t) as s:
        s.start_agent()
        pod = s.capture()
        ours = os.pidfd_open(os.getpid())
        theirs = os.pidfd_open(s.node.pid(pod.containers["main"]))
        path = s.door / "agent.sock"
        answer = ask_door(path, ours)
        assert answer["type"] == "failed" and "not the first process of a container" in answer["error"], answer
        answer = ask_door(path, theirs)
        assert answer["type"] == "failed" and f"process {os.getpid()} says that it is" in answer["error"], answer
        null = os.open("/dev/null", os.O_RDONLY)
        assert "holds no process" in ask_door(path, null)["error"]
        for fd in (ours, theirs, null):
            os.close(fd)
        assert last_tick(s.node.output(pod, "main")) > 0 and s.agent.poll() is None


def test_one_pod_does_not_take_all_places(t):
    """Of one pod four may be at the door at once; the fifth is turned away, and comes in when one has left."""
    with door(t) as s:
        s.start_agent()
        path = str(s.door / "agent.sock")
        with contextlib.ExitStack() as open_ones:
            def knock():
                sk = open_ones.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
                sk.settimeout(60)
                sk.connect(path)
                return sk

            silent = [knock() for _ in range(5)]
            answer = json.loads(silent[4].recv(65536))
            assert "too many restores to do for this pod" in answer["error"], answer
            for sk in silent[:4]:  # in their turn, for want of a request
                assert json.loads(sk.recv(65536))["type"] == "failed"
                sk.close()
            ours = os.pidfd_open(os.getpid())
            wait_for("room", lambda: "not the first process" in ask_door(path, ours)["error"])
            os.close(ours)


def process(name, parent):
    """A living process of this name (its first argument's end) below `parent`."""
    for pid in descendants(parent):
        try:
            if name in pathlib.Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        except OSError:
            continue
    return None


def ask_and_hold(s, name, **more):
    """A container that asks, and the CRIU that restores for it, stopped as soon as it is there: it takes some
    tenths of a second, so it is looked for without a pause, from the moment on that the agent may begin."""
    s.agent.send_signal(signal.SIGSTOP)
    place = s.ask(name, **more)
    s.agent.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + 60
    while not (pid := process("swrk", s.agent.pid)):
        assert time.monotonic() < deadline, s.agent.text()
    os.kill(pid, signal.SIGSTOP)
    return place, pid


def test_an_agent_that_is_silent(t):
    """A container whose agent does not answer starts cold in time; nothing is restored when it comes back."""
    with door(t) as s:
        s.start_agent()
        s.capture()
        place = s.ask("absent", env={"CHREK_AGENT_SOCKET": "/nowhere"}, security={})
        assert "tick 1" in wait_for("ticks", lambda: "tick 3" in s.node.output(place, "main")
                                    and s.node.output(place, "main"))
        s.agent.send_signal(signal.SIGSTOP)
        place = s.ask("silent", env={"CHREK_AGENT_TIMEOUT": "1s"}, security={})
        cold(s, place, "the other end says nothing")
        s.agent.send_signal(signal.SIGCONT)
        wait_for("the agent", lambda: "caller refused" in s.agent.text() or s.events("RestoreFailed"))
        cold(s, place, "the other end says nothing")


def test_an_agent_that_is_killed_restoring(t):
    """Killed while CRIU is at work: the container starts cold, alone, and the next agent restores another one."""
    with door(t) as s:
        s.start_agent()
        s.capture(security=UNPRIVILEGED)
        place, criu = ask_and_hold(s, "orphan")
        s.stop_agent(signal.SIGKILL)
        os.kill(criu, signal.SIGCONT)
        s.start_agent()
        cold(s, place, "closed the connection")
        assert not pathlib.Path(f"/proc/{criu}").exists()
        assert "Restore operation completed" in s.outcome(s.ask("next"))


def waits_for_answer(pid):
    """Whether a process of CRIU's waits in recvfrom()."""
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/syscall").read_text(encoding="utf-8").startswith("45 ")
    return False


def traced_by(pid):
    """The processes that it holds."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            if f"TracerPid:\t{pid}\n" in status.read_text(encoding="utf-8"):
                found.append(int(status.parent.name))
    return found


@contextlib.contextmanager
def unaudited(s, name):
    """A restore with its tree whole, before it may run: its place, the worker, CRIU and the tree."""
    place, criu = ask_and_hold(s, name, env={"CHREK_AGENT_TIMEOUT": "60s"})
    worker = process("__restore", s.agent.pid)
    first = s.node.pid(place.containers["main"])
    os.kill(first, signal.SIGSTOP)  # it does not say `go`
    os.kill(criu, signal.SIGCONT)
    try:
        tree = wait_for("the tree", lambda: waits_for_answer(criu) and traced_by(criu))
        yield place, worker, criu, tree
    finally:
        with contextlib.suppress(OSError):
            os.kill(first, signal.SIGCONT)


def gone(pid):
    """It has ended, whether or not somebody has taken note."""
    try:
        return ") Z " in pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return True


def test_nothing_runs_before_it_was_audited(t):
    """Whoever is killed with the tree restored and not yet let go, CRIU, worker or agent: it never runs."""
    with door(t) as s:
        s.start_agent()
        s.capture(security=UNPRIVILEGED)
        for name, victim, how in (("criu", 1, signal.SIGKILL), ("works", 0, signal.SIGKILL),
                                  ("cancelled", 0, signal.SIGTERM), ("agent", None, signal.SIGKILL)):
            with unaudited(s, name) as (place, worker, criu, tree):
                if victim is None:
                    s.stop_agent(how)
                else:
                    os.kill((worker, criu)[victim], how)
                wait_for("its end", lambda all=[criu, *tree]: all and [pid for pid in all if not gone(pid)] == [])
                assert "tick" not in s.node.output(place, "main"), s.node.output(place, "main")
            cold(s, place, {"criu": "cannot restore the processes", "works": "ended by signal 9",
                            "cancelled": "interrupted by SIGTERM",
                            "agent": "closed the connection"}[name])
        s.start_agent()
        assert "Restore operation completed" in s.outcome(s.ask("next"))


def test_a_worker_that_is_killed_before_criu_is_done(t):
    """CRIU is at work and its worker is killed: the container is told once CRIU and all that it made have ended."""
    with door(t) as s:
        s.start_agent()
        s.capture(security=UNPRIVILEGED)
        place, criu = ask_and_hold(s, "orphan", env={"CHREK_AGENT_TIMEOUT": "60s"})
        os.kill(process("__restore", s.agent.pid), signal.SIGKILL)
        cold(s, place, "ended by signal 9")
        assert gone(criu)
        assert "Restore operation completed" in s.outcome(s.ask("next"))


def test_what_a_container_could_not_have_by_itself(t):
    """Limits, priorities and files that the restored program has and its container may not: it never runs."""
    with door(t) as s:
        s.start_agent()
        volume = t.dir / "volume"
        volume.mkdir()
        (volume / "log").write_text("mine\n")
        s.capture(command=("/bin/tiny", "tick", "/data/log"), mounts=[(volume, "/data")], security={})

        def ask(name, change, **more):
            place, criu = ask_and_hold(s, name, mounts=[(volume, "/data")], security={},
                                       env={"CHREK_AGENT_TIMEOUT": "60s"}, **more)
            change(s.node.pid(place.containers["main"]))
            os.kill(criu, signal.SIGCONT)
            return place

        def limit(pid):
            soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft - 1 if soft == hard else soft, hard - 1))

        cold(s, ask("limited", limit), "its limit 'Max open files' is higher")
        cold(s, ask("patient", lambda pid: os.setpriority(os.PRIO_PROCESS, pid, 5)), "its nice value 0 is lower")

        place = ask("cheap", lambda pid: pathlib.Path(f"/proc/{pid}/oom_score_adj").write_text("900"))
        assert "Restore operation completed" in s.outcome(place), s.outcome(place) + s.agent.text()
        assert pathlib.Path(f"/proc/{s.status_of(place)[0]}/oom_score_adj").read_text() == "900\n"

        (volume / "log").chmod(0o600)
        weak = {1: {2: ["DAC_OVERRIDE"]}}
        pod = s.run("reader", command=("/bin/tiny", "tick", "/data/log"), mounts=[(volume, "/data")], security=weak)
        s.announce(pod, labels={**LABELS, "nvidia.com/checkpoint-hash": "weak"})
        s.wait_status(pod, "completed")
        os.chown(volume / "log", 1000, 1000)
        place = s.ask("blind", mounts=[(volume, "/data")], security=weak, env={"DYN_CHECKPOINT_HASH": "weak"})
        cold(s, place, "its file '/data/log': this container could not open it")


def test_ids_belong_to_a_namespace(t):
    """What a pod of another namespace has captured under an id is not taken for this pod's, nor replaced by it."""
    with door(t) as s:
        s.start_agent()
        s.api.create("namespaces", {"metadata": {"name": "other"}})
        s.capture(security=UNPRIVILEGED)
        pod = s.run("late", namespace="other", security=UNPRIVILEGED)
        s.announce(pod)
        s.wait_status(pod, "failed")
        assert "taken by a pod of another namespace" in s.annotation(pod, "message"), s.annotation(pod, "message")
        cold(s, s.ask("stranger", namespace="other"), "no checkpoint 'abc123' of a pod in namespace 'other'")
        assert "Restore operation completed" in s.outcome(s.ask("owner"))


def test_files_and_read_only_roots(t):
    """What the workload has changed comes with it, by the pod's own rights; a root that cannot be written is fine."""
    with door(t) as s:
        s.start_agent()
        s.run("source", security=UNPRIVILEGED)
        root = s.in_container(s.node.pods[-1], "/")
        pathlib.Path(root, "tmp/mine").write_text("by the workload\n", encoding="utf-8")
        os.chown(root + "tmp/mine", 1000, 1000)
        s.announce(s.node.pods[-1])
        s.wait_status(s.node.pods[-1], "completed")
        place = s.ask("writable", env={"DYN_RESTORE_MARKER_FILE": "/tmp/marker"})
        assert "Restore operation completed" in s.outcome(place), s.outcome(place) + s.agent.text()
        inside = s.in_container(place, "/tmp/")
        assert pathlib.Path(inside, "mine").read_text(encoding="utf-8") == "by the workload\n"
        assert pathlib.Path(inside, "marker").read_text(encoding="utf-8") == "restored"
        cold(s, s.ask("read-only", security={**UNPRIVILEGED, 7: True}), "mine")


def test_a_read_only_root(t):
    """A container whose root file system cannot be written, from one like it."""
    with door(t) as s:
        s.start_agent()
        strict = {**UNPRIVILEGED, 7: True}
        s.capture(security=strict)
        place = s.ask("restored", security=strict)
        assert "Restore operation completed" in s.outcome(place), s.outcome(place) + s.agent.text()
        pid, status = s.status_of(place)
        options = pathlib.Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8").split("\n")
        root = next(line.split() for line in options if line and line.split()[4] == "/")
        assert "ro" in root[5].split(","), root
        assert status["CapEff"] == "0" * 16, status


EVIL = """
#include <unistd.h>
__attribute__((constructor)) static void evil(void) { _exit(99); }
"""


def test_a_container_that_lies_in_wait(t):
    """A library, a configuration and a plugin that the container has prepared are not CRIU's; nor is a link a file."""
    with door(t) as s:
        s.start_agent()
        volume = t.dir / "volume"
        volume.mkdir()
        (volume / "log").write_text("from the image\n")
        s.capture(command=("/bin/tiny", "tick", "/data/log"), mounts=[(volume, "/data")], security={})
        (t.dir / "evil.c").write_text(EVIL)
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", t.dir / "evil.so", t.dir / "evil.c"], check=True)
        (t.dir / "preload").write_text("/lib/evil.so\n")
        (t.dir / "conf").write_text("no-such-option\n")
        traps = [(t.dir / "evil.so", "/lib/evil.so"), (t.dir / "preload", "/etc/ld.so.preload"),
                 (t.dir / "conf", "/etc/criu/default.conf"), (t.dir / "evil.so", "/usr/lib/criu/evil.so")]
        place = s.ask("prepared", mounts=[*traps, (volume, "/data")], security={})
        assert "Restore operation completed" in s.outcome(place), s.outcome(place) + s.agent.text()
        (volume / "log").unlink()
        (volume / "log").symlink_to("/proc/1/root/etc/kept")  # the same content, by another mount
        place = s.ask("linked", mounts=[(volume, "/data")], security={})
        cold(s, place, "its file '/etc/kept' is outside of the container")


def hierarchy():
    """A hierarchy of control groups in which groups can be made: where it is mounted, or Skip."""
    for line in pathlib.Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        path, kind = line.split()[4], line.split(" - ")[1].split()[0]
        if kind in ("cgroup", "cgroup2") and "cpuset" not in line and os.access(path, os.W_OK):
            return pathlib.Path(path)
    raise Skip("machine: no control groups can be made here")


def test_control_groups(t):
    """The restored program is in the control groups of its container."""
    group = hierarchy() / t.dir.name
    with door(t) as s:
        s.start_agent()
        s.capture(security=UNPRIVILEGED)
        s.agent.send_signal(signal.SIGSTOP)  # until the container is where it is to be
        place = s.ask("restored", env={"CHREK_AGENT_TIMEOUT": "60s"})
        group.mkdir()
        try:
            first = s.node.pid(place.containers["main"])
            (group / "cgroup.procs").write_text(str(first), encoding="utf-8")
            s.agent.send_signal(signal.SIGCONT)
            assert "Restore operation completed" in s.outcome(place), s.outcome(place) + s.agent.text()
            pid, _ = s.status_of(place)
            theirs = pathlib.Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
            assert t.dir.name in theirs, theirs
            assert theirs == pathlib.Path(f"/proc/{first}/cgroup").read_text(encoding="utf-8")
            os.kill(first, signal.SIGKILL)
            wait_for("an empty group", lambda: not (group / "cgroup.procs").read_text(encoding="utf-8"))
        finally:
            group.rmdir()
