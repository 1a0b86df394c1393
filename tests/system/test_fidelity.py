"""A command under `chrek run` behaves as if it had been started directly."""

import os
import pty
import select
import signal
import subprocess
import time

from lib import CHREK, Skip, wait_for  # noqa: F401

NEVER = ("run", "--ready", "never", "--")


def both(t, argv, **kwargs):
    """The same command directly and under chrek."""
    direct = subprocess.run(argv, capture_output=True, timeout=30, cwd=t.dir, **kwargs)
    ours = subprocess.run([CHREK, *NEVER, *argv], capture_output=True, timeout=30, cwd=t.dir,
                          env=t.env, **kwargs)
    return direct, ours


def test_exit_codes(t):
    """Exit codes are passed through."""
    for code in (0, 1, 2, 7, 42, 100, 124, 125, 126, 127, 128, 255):
        assert t.chrek(*NEVER, "sh", "-c", f"exit {code}", check=False).returncode == code


def test_death_by_signal(t):
    """A command that a signal ends makes chrek end by the same signal."""
    for sig in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT, signal.SIGUSR1):
        direct, ours = both(t, ["sh", "-c", f"kill -{int(sig)} $$"])
        assert ours.returncode == direct.returncode == -sig, (sig, ours)


def test_no_such_command(t):
    """A command that cannot be executed: 127 and 126, with the reason."""
    done = t.chrek(*NEVER, "no-such-command", check=False)
    assert done.returncode == 127 and "No such file" in done.stderr
    done = t.chrek(*NEVER, "/etc/passwd", check=False)
    assert done.returncode == 126 and "Permission denied" in done.stderr


def test_streams(t):
    """Input, output and error arrive byte for byte, each where it belongs."""
    data = os.urandom(3_000_000)
    direct, ours = both(t, ["sh", "-c", "cat; echo oops >&2"], input=data)
    assert ours.stdout == direct.stdout == data
    assert ours.stderr == direct.stderr == b"oops\n"


def test_interleaving(t):
    """With 2>&1 the order of what is written to both is kept."""
    script = "for i in 1 2 3 4 5 6 7 8 9; do echo o$i; echo e$i >&2; done"
    out = subprocess.run([CHREK, *NEVER, "sh", "-c", script], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, timeout=30, env=t.env, check=True).stdout
    assert out.decode().split() == [f"{c}{i}" for i in range(1, 10) for c in "oe"]


def test_closed_output(t):
    """A reader that goes away ends the writer, as in `yes | head`."""
    done = subprocess.run(f"{CHREK} run --ready never -- yes | head -n 1", shell=True, text=True,
                          capture_output=True, timeout=30, env=t.env, check=True)
    assert done.stdout == "y\n"


def test_directory_and_environment(t):
    """Working directory and environment are the caller's, with CHREK_DIR added."""
    env = dict(t.env, MARK="a b\nc")
    done = t.chrek(*NEVER, "sh", "-c", 'pwd; printf "%s|" "$MARK"; ls $CHREK_DIR', env=env)
    assert done.stdout.startswith(f"{t.dir}\na b\nc|"), done.stdout
    assert "generation" in done.stdout and "random" in done.stdout


def test_inherited_descriptor(t):
    """A descriptor that the caller hands down is the command's, at its offset."""
    path = t.dir / "lines"
    path.write_text("one\ntwo\n")
    with open(path, "rb") as f:
        os.lseek(f.fileno(), 4, os.SEEK_SET)
        done = t.chrek(*NEVER, "sh", "-c", f"cat <&{f.fileno()}", pass_fds=[f.fileno()])
    assert done.stdout == "two\n"


def test_signals_are_passed_on(t):
    """Every signal that a program may catch reaches the command."""
    script = """
import os, signal, sys, time
def seen(number, frame):
    print('got', number, flush=True)
for number in map(int, sys.argv[1:]):
    signal.signal(number, seen)
print('ready', flush=True)
while True:
    time.sleep(1)
"""
    numbers = [int(s) for s in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1,
                                signal.SIGUSR2, signal.SIGALRM, signal.SIGTERM, signal.SIGWINCH,
                                signal.SIGRTMIN + 3)]
    p = t.start(*NEVER, "python3", "-c", script, *numbers)
    wait_for("the script", lambda: "ready" in p.text())
    for number in numbers:
        p.send_signal(number)
        wait_for(f"signal {number}", lambda n=number: f"got {n}\n" in p.text())
    p.kill()


def test_kill_takes_the_command_along(t):
    """SIGKILL of chrek leaves nothing behind: no process, no box."""
    p = t.start(*NEVER, "sleep", "1234567")
    wait_for("sleep", lambda: pids_of("1234567"))
    p.kill()
    p.wait()
    wait_for("the end of sleep", lambda: not pids_of("1234567"))
    assert t.json("status")["boxes"] == []


def pids_of(word):
    found = []
    for d in os.listdir("/proc"):
        try:
            if d.isdigit() and word in open(f"/proc/{d}/cmdline", encoding="utf-8").read() \
                    and "sleep" in open(f"/proc/{d}/comm", encoding="utf-8").read():
                found.append(int(d))
        except OSError:
            continue
    return found


class Terminal:
    """A terminal with chrek on it, as a person would have."""

    def __init__(self, t, *args, rows=33, columns=99, program=CHREK):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)  # ignored by whom a script runs with `&`
            os.chdir(t.dir)
            subprocess.run(["stty", "rows", str(rows), "cols", str(columns)], check=True)
            os.execvpe(program, [program, *map(str, args)], t.env)
        self.text = ""

    def read_until(self, what, timeout=30):
        end = time.monotonic() + timeout
        while what not in self.text:
            if not select.select([self.fd], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {what!r} in {self.text!r}")
            try:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                break
        assert what in self.text, self.text

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                break
            if not data:
                break
            self.text += data.decode(errors="replace")
        status = os.waitpid(self.pid, 0)[1]
        os.close(self.fd)
        return status


def test_terminal(t):
    """On a terminal the command has one: its size, job control, Ctrl-C and Ctrl-D."""
    term = Terminal(t, *NEVER, "sh")
    term.type("tty; stty size; echo done$((1+1))\n")
    term.read_until("done2")
    assert "/dev/pts/" in term.text and "33 99" in term.text, term.text
    term.type("sleep 1000\n")
    time.sleep(0.3)
    term.type("\x03")
    term.type("echo back$((40+2))\n")
    term.read_until("back42")
    term.type("exit 5\n")
    assert os.waitstatus_to_exitcode(term.wait()) == 5


FULL_SCREEN = """
import signal, time
signal.signal(signal.SIGWINCH, lambda *_: print("drawn", flush=True))
print("up", flush=True)
while True:
    time.sleep(0.1)
"""


def test_a_restored_full_screen_program_draws_again(t):
    """On a new terminal of the same size nothing else would tell it to."""
    first = Terminal(t, "run", "--name", "c", "--ready", "log:up", "--stop", "--", "python3", "-c", FULL_SCREEN)
    assert os.waitstatus_to_exitcode(first.wait()) == 0, first.text
    assert "drawn" not in first.text, first.text
    again = Terminal(t, "restore", "c")
    again.read_until("drawn")
    again.type("\x03")
    again.wait()


def test_progress_of_a_long_restore(t):
    """Who waits for a restore sees how far it is, on a terminal; nothing of that is left when the program runs."""
    first = Terminal(t, "run", "--name", "c", "--ready", "log:up", "--stop", "--", "python3", "-c", FULL_SCREEN)
    assert os.waitstatus_to_exitcode(first.wait()) == 0, first.text
    t.env.update(t.between("post-restore", "late"))
    again = Terminal(t, "restore", "c")
    again.read_until("drawn")
    assert "Restoring" in again.text, again.text
    shown, after = again.text.rsplit("Restoring", 1)
    assert after.index("\033[K") < after.index("chrek: restored") < after.index("drawn"), again.text
    again.type("\x03")
    again.wait()
    quiet = Terminal(t, "restore", "--quiet", "c")
    quiet.read_until("drawn")
    assert "Restoring" not in quiet.text, quiet.text
    quiet.type("\x03")
    quiet.wait()


def test_ctrl_c_with_output_in_a_pipe(t):
    """Ctrl-C and Ctrl-Z reach all that the terminal would have reached, not the first process only."""
    script = "python3 -u -c 'import time; print(12345, flush=True); time.sleep(40)'; true"
    term = Terminal(t, "-c", 'chrek=$1; shift; "$chrek" "$@" | cat', "sh", CHREK, *NEVER, "sh", "-c",
                    f"trap : INT; {script}", program="sh")
    term.read_until("12345")
    begun = time.monotonic()
    term.type("\x03")
    term.wait()
    assert time.monotonic() - begun < 20


# A shell as far as this needs one: a job in the background, then in the foreground.
SHELL = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], preexec_fn=os.setpgrp)
while not os.path.exists('typed'):
    time.sleep(0.02)
time.sleep(1)
stopped = os.waitpid(job.pid, os.WNOHANG | os.WUNTRACED)[0]
print('stopped' if stopped else 'goes on', flush=True)
os.tcsetpgrp(0, job.pid)
print('status', job.wait(), flush=True)
"""


def test_in_the_background(t):
    """What is typed while chrek is in the background does not stop it; in the foreground it reads."""
    term = Terminal(t, "-c", SHELL, CHREK, *NEVER, "sh", "-c", "echo up; read x; echo got $x",
                    program="python3")
    term.read_until("up")
    term.type("word\n")
    (t.dir / "typed").touch()
    term.read_until("goes on")
    term.read_until("got word")
    term.read_until("status 0")
    term.wait()


# Stops its job by the terminal's own signal, lets it go on behind, then in front.
STOPPING_SHELL = """
import os, signal, subprocess, sys, termios, time
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
job = subprocess.Popen(sys.argv[1:], preexec_fn=os.setpgrp)
os.tcsetpgrp(0, job.pid)
def raw():
    return not termios.tcgetattr(0)[3] & termios.ICANON
def wait(what):
    end = time.monotonic() + 20
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)
wait(raw)
os.kill(job.pid, signal.SIGTSTP)
os.waitpid(job.pid, os.WUNTRACED)
print('cooked', not raw(), flush=True)
os.tcsetpgrp(0, os.getpgrp())
os.killpg(job.pid, signal.SIGCONT)
time.sleep(0.6)
print('still cooked', not raw(), flush=True)
os.tcsetpgrp(0, job.pid)
wait(raw)
print('raw again', flush=True)
print('status', job.wait(), flush=True)
os.tcsetpgrp(0, os.getpgrp())
print('cooked at the end', not raw(), flush=True)
"""


def test_stopped_and_continued(t):
    """The terminal is raw only while chrek has it: stopped, behind, in front again, and at the end."""
    term = Terminal(t, "-c", STOPPING_SHELL, CHREK, *NEVER, "sh", "-c",
                    "echo up; read x; echo got $x", program="python3")
    for word in ("cooked True", "still cooked True", "raw again"):
        term.read_until(word)
    term.type("word\r")
    term.read_until("got word")
    term.read_until("cooked at the end True")
    assert "status 0" in term.text
    term.wait()
