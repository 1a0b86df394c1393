"""Memory that is copied when the program runs again, or is no more: what it was in the freeze."""

import os
import pathlib
import signal
import subprocess

from lib import find, processes_of, wait_for
from test_ahead import churning, finish
from test_crash import faulty
from test_pager import ended_well, restore
from test_plain import waiting
from test_stuck import Program, children, criu_of, state

# Looks for anything that a checkpoint could have left with it; its memory is copied for some time.
WATCHFUL = """
import ctypes, mmap, os, signal, sys, time
told = []
signal.signal(signal.SIGCHLD, lambda *_: told.append(1))
much = mmap.mmap(-1, 96 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
apart = mmap.mmap(-1, 1 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(much), 4096):
    much[at:at + 8] = at.to_bytes(8, 'little')
apart[:] = b'apart...' * (len(apart) // 8)
libc = ctypes.CDLL(None)
reaper = ctypes.c_int(0)
reaps = sys.argv[1] in ('reaper', 'above')
if reaps:
    libc.prctl(36, 1)
child = os.fork() if sys.argv[1] == 'above' else 0  # whose keeper would be an orphan of the program's
if sys.argv[1] == 'above' and not child:
    while True:
        time.sleep(1)
children = lambda: open(f'/proc/self/task/{os.getpid()}/children').read().split()
family = children()
if sys.argv[1] == 'apart':
    apart.madvise(mmap.MADV_DONTFORK)
files = len(os.listdir('/proc/self/fd'))
strange = ''
print('ready', flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.002)
    try:
        got = os.waitpid(-1, os.WNOHANG | 0x40000000)
        if got[0] or not child:
            strange += f'child {got} '
    except ChildProcessError:
        pass
    if children() != family:
        strange += 'a child '
    if len(os.listdir('/proc/self/fd')) != files:
        strange += 'a file '
right = all(much[at:at + 8] == at.to_bytes(8, 'little') for at in range(0, len(much), 4096))
right = right and apart[:] == b'apart...' * (len(apart) // 8)
libc.prctl(37, ctypes.byref(reaper))
right = right and reaper.value == reaps
if child:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print('all ok' if right and not told and not strange else f'bad: {right} {told} {strange[:200]}', flush=True)
"""


# Whose C library knows by a word in its memory, which the kernel clears at its end, that a thread lives.
THREADED = """
import ctypes, os, sys, time
c = ctypes.CDLL(None)
work = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: time.sleep(1000000))
threads = [ctypes.c_ulong() for _ in range(4)]
for thread in threads:
    assert c.pthread_create(ctypes.byref(thread), None, work, None) == 0
print('ready', flush=True)
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print('all ok' if all(c.pthread_tryjoin_np(thread, None) == 16 for thread in threads) else 'bad', flush=True)
os._exit(0)
"""


def watchful(t, how):
    with open(t.dir / "said", "ab") as said:
        p = subprocess.Popen(["python3", "-c", WATCHFUL, how, t.dir / "go"], env=t.env, stdin=subprocess.DEVNULL,
                             stdout=said, stderr=said, start_new_session=True)
    wait_for("ready", lambda: b"ready" in (t.dir / "said").read_bytes() or p.poll() is not None)
    return p


def ended(t, p):
    (t.dir / "go").touch()
    assert p.wait(60) == 0
    said = (t.dir / "said").read_text()
    assert "all ok" in said, said


def others(t, p):
    """Processes that have the program's memory, beside itself."""
    name = pathlib.Path(f"/proc/{p.pid}/cmdline").read_bytes()
    return [pid for pid, command in processes_of(str(t.dir).encode()).items() if pid != p.pid and command == name]


def test_written_while_it_is_copied(t):
    """A tree that changes its memory all the time, also during the copying: each format."""
    for form in ("packed", "plain"):
        p = churning(t, 64)
        t.chrek("checkpoint", "--format", form, "--id", form, "c")
        finish(t, p)
        (t.dir / "go").unlink()
        ended_well(restore(t, "full", form))


def test_no_trace(t):
    """The program has no child, descriptor or signal more than before, and what no child inherits is saved."""
    for how in ("all", "apart", "reaper", "above"):
        (t.dir / "go").unlink(missing_ok=True)
        (t.dir / "said").unlink(missing_ok=True)
        p = watchful(t, how)
        for form in ("packed", "plain"):
            t.chrek("checkpoint", "--format", form, "--id", f"{how}-{form}", p.pid)
        wait_for("the end of all others", lambda p=p, n=how == "above": len(others(t, p)) == n)
        ended(t, p)
        for form in ("packed", "plain"):
            again = restore(t, "full", f"{how}-{form}")
            assert again.wait(60) == 0, again.text()
            assert "bad" not in (t.dir / "said").read_text()


def test_limit(t):
    """--keep-limit: a program with more memory is copied while it stands still."""
    prefix = t.dir / "prefix"
    (prefix / "sbin").mkdir(parents=True)
    (prefix / "lib").symlink_to(pathlib.Path(find("CHREK_CRIU", "build/criu/sbin/criu")).resolve().parents[1] / "lib")
    env = dict(t.env, **t.between("post-dump", "hang"))
    (t.dir / "criu").rename(prefix / "sbin/criu")
    env["CHREK_CRIU"] = str(prefix / "sbin/criu")
    p = waiting(t, 48)
    for limit, kept in (("0", False), ("32M", False), ("2G", True)):
        c = t.start("checkpoint", "--keep-limit", limit, "--id", "x", p.pid, env=env)
        criu, = wait_for("CRIU", lambda: [pid for pid, line in processes_of(str(t.dir).encode()).items()
                                          if line.startswith(env["PROXY_CRIU"].encode()) or b"criu\0--no-def" in line])[:1]
        said = pathlib.Path(f"/proc/{criu}/environ").read_bytes()
        assert b"CHREK_HIDDEN_FD=" in said and (b",keep" in said) == kept, (limit, said)
        t.stop(c, signal.SIGKILL)
        wait_for("CRIU's end", lambda q=criu: not os.path.exists(f"/proc/{q}"))
    ended(t, p)


def test_ended_early(t):
    """The program is gone when its memory is copied."""
    p = waiting(t, 48)
    t.chrek("checkpoint", "--stop", "--early", "--id", "x", p.pid)
    assert p.wait(10) == -signal.SIGKILL
    assert "whole" in t.chrek("verify", "x").stdout
    again = restore(t, "full", "x")
    assert again.wait(60) == 0 and "all ok" in (t.dir / "said").read_text(), again.text()


def test_threads_that_were_ended_early(t):
    """What the kernel writes when it kills a thread is not in the checkpoint."""
    with open(t.dir / "said", "wb") as said:
        p = subprocess.Popen(["python3", "-c", THREADED, t.dir / "go"], env=t.env, stdin=subprocess.DEVNULL,
                             stdout=said, stderr=said, start_new_session=True)
    wait_for("ready", lambda: b"ready" in (t.dir / "said").read_bytes() or p.poll() is not None)
    t.chrek("checkpoint", "--stop", "--early", "--id", "x", p.pid)
    assert p.wait(10) == -signal.SIGKILL
    again = restore(t, "full", "x")
    assert again.wait(60) == 0 and "all ok" in (t.dir / "said").read_text(), again.text()


def hanging(t):
    """An environment in which CRIU says no more when all is dumped, and the file that is there then."""
    prefix = t.dir / "prefix"
    (prefix / "sbin").mkdir(parents=True)
    criu = pathlib.Path(find("CHREK_CRIU", "build/criu/sbin/criu"))
    (prefix / "lib").symlink_to(criu.resolve().parents[1] / "lib")
    env = dict(t.env, **t.between("post-dump", "hang"))
    (t.dir / "criu").rename(prefix / "sbin/criu")
    env["CHREK_CRIU"] = str(prefix / "sbin/criu")
    return env, prefix / "sbin/criu.met"


def test_little_to_copy(t):
    """Of a program that has been read ahead, and writes little, no copy is made."""
    env, met = hanging(t)
    p = waiting(t, 48)
    c = t.start("checkpoint", "--incremental", "--id", "x", p.pid, env=env)
    wait_for("the end of the copying", met.exists)
    assert not others(t, p)
    t.stop(c, signal.SIGKILL)
    ended(t, p)


# Ends with all its threads as soon as one of them runs; so does a child that its parent then kills.
HASTY = """
import os, signal, sys, threading, time
child = os.fork() if sys.argv[2] == 'child' else 0
for _ in range(60):
    threading.Thread(target=time.sleep, args=(1000000,), daemon=True).start()
if sys.argv[2] == 'child' and not child:
    time.sleep(1000000)
print('ready', flush=True)
while not os.path.exists(sys.argv[1]):
    pass
if child:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
print('all ok', flush=True)
os._exit(7)
"""


def test_ends_while_it_is_let_go(t):
    """A restored program that ends at once, or ends a child, while CRIU still lets go of threads: as it wants."""
    for how in ("alone", "child"):
        (t.dir / "go").unlink(missing_ok=True)
        p = t.run_until_saved(how, "log:ready", "python3", "-c", HASTY, t.dir / "go", how, options=["--stop"])
        assert p.wait(60) == 0, p.text()
        for _ in range(6):
            again = restore(t, "full", how)
            assert again.wait(60) == 7 and "all ok" in again.text(), again.text()


def test_killed_meanwhile(t):
    """Who keeps the memory ends with chrek, whatever that was about to do; the program goes on."""
    env, _ = hanging(t)
    p = waiting(t, 48)
    c = t.start("checkpoint", "--id", "x", p.pid, env=env)
    wait_for("a keeper that is chrek's", lambda: any(traced_by(c, pid) for pid in others(t, p)))
    t.stop(c, signal.SIGKILL)
    wait_for("its end", lambda: not others(t, p))
    done = faulty(t, "publish:kill", "checkpoint", "--id", "x", str(p.pid))
    assert done.returncode == -signal.SIGKILL
    wait_for("the end of all others", lambda: not others(t, p))
    ended(t, p)


def traced_by(tracer, pid):
    try:
        return f"TracerPid:\t{tracer.pid}\n" in pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


# Each with much memory of its own.
FAMILY = """
import os, time
for _ in range(7):
    if os.fork() == 0:
        break
much = b'family..' * (6 << 20)
while True:
    os.write(1, b'%d tick\\n' % os.getpid())
    time.sleep(0.01)
"""


def test_criu_is_killed_while_it_makes_keepers(t):
    """No keeper stays behind; each process goes on, or is said to be lost."""
    seen = 0
    for _ in range(4):
        with Program(t, FAMILY) as program:
            wait_for("all", lambda p=program: len(set(p.log.read_text().split())) > 8)
            tree = {program.pid, *children(program.pid)}
            p = t.start("checkpoint", "--replace", "--id", "x", program.pid)
            criu = wait_for("CRIU", lambda q=p: criu_of(q.pid) or q.poll() is not None)
            while p.poll() is None and not set(others(t, program)) - tree:
                pass
            if p.poll() is None:
                os.kill(criu, signal.SIGKILL)
            code = p.wait(60)
            wait_for("the end of all others", lambda q=program, all_of=tree: not set(others(t, q)) - all_of)
            lost = {pid for pid in tree if state(pid) in ("gone", "Z")}
            for pid in tree:
                assert (pid in lost) == (f"{pid} (" in p.text()), (pid, lost, p.text())
            for pid in tree - lost:
                count = program.log.read_text().count(f"{pid} tick")
                wait_for(f"life of {pid}", lambda q=program, i=pid, c=count: q.log.read_text().count(f"{i} tick") > c)
            seen += code != 0
            for pid in tree - lost:
                os.kill(pid, signal.SIGKILL)
    assert seen, "no CRIU was killed in time"
