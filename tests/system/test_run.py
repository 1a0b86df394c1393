"""What `chrek run` and `chrek restore` say and do where a user might expect something else."""

import signal
import subprocess

from lib import free_port, http_or_none, wait_for

LISTENER = """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"ok")
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""


def test_stop_ends_with_or_without_a_checkpoint(t):
    """0 when it is saved or was there already, 123 when it cannot be, the command's own status else."""
    stop = ("run", "--name", "c", "--stop", "--ready", "after:0.3", "--")
    assert "saved" in t.chrek(*stop, "sleep", "1000").stderr
    done = t.chrek(*stop, "sleep", "1000")
    assert "is there already" in done.stderr, done.stderr
    for number, command, want, words in (
            (1, ("--ready", "tcp:1", "--ready-timeout", "300ms", "--", "sleep", "1000"), 123, "in time; the command is ended"),
            (2, ("--", "true"), 123, "ended before it was ready"),
            (3, ("--", "sh", "-c", "exit 3"), 3, "ended before it was ready"),
            (4, ("--", "no-such-command"), 127, "no-such-command")):
        done = t.chrek("run", "--name", f"x{number}", "--stop", *command, check=False)
        assert done.returncode == want and words in done.stderr, (command, done)
    full = t.tmpfs("full")
    subprocess.run(["mount", "-o", "remount,size=64k", full], check=True)
    done = t.chrek("run", "--store", full, *stop[1:], "sleep", "1000", check=False)
    assert done.returncode == 123 and "the command is ended" in done.stderr, done
    (t.store / "c" / "checkpoint.done").write_text("{}")
    done = t.chrek(*stop, "sleep", "1000", check=False)
    assert done.returncode == 0 and "Falling back" in done.stderr and "saved" in done.stderr, done


def test_a_name_with_another_command_is_told_of(t):
    """The checkpoint is restored, and says whose it is."""
    t.chrek("run", "--name", "c", "--stop", "--ready", "after:0.2", "--", "sleep", "1.2")
    same = t.chrek("run", "--name", "c", "--", "sleep", "1.2")
    assert "another command" not in same.stderr and "restored 'c'" in same.stderr, same.stderr
    other = t.chrek("run", "--name", "c", "--", "sleep", "1.3")
    assert "another command, which is restored: sleep 1.2; --cold" in other.stderr, other.stderr
    assert t.chrek("run", "--quiet", "--name", "c", "--", "sleep", "1.2").stderr == ""


def test_a_command_that_ends_early_is_told_of(t):
    """Nobody is left to wonder where the checkpoint is."""
    assert "ended before it was ready" in t.chrek("run", "--", "true").stderr
    for options in (("--quiet",), ("--ready", "never")):
        assert t.chrek("run", *options, "--", "true").stderr == ""


def test_a_port_is_one_program_s(t):
    """Two lives of one server: the second is refused, also when both begin at once."""
    port = free_port()
    p = t.run_until_saved("c", f"tcp:{port}", "python3", "-c", LISTENER, port)
    done = t.chrek("restore", "c", check=False)
    assert done.returncode == 125 and f"is taken: 127.0.0.1:{port}" in done.stderr, done
    t.stop(p)
    lives = [t.start("restore", "--name", f"r{i}", "c") for i in range(3)]
    wait_for("all but one to end", lambda: [p.poll() is None for p in lives].count(True) == 1)
    assert http_or_none(port) == "ok"
    for p in lives:
        if p.poll() is not None:
            assert p.returncode == 125 and f"is taken: 127.0.0.1:{port}" in p.text(), p.text()
        else:
            assert t.stop(p) == -signal.SIGTERM


GROW = "while :; do echo $((n += 1)); sleep 0.05; done"


def test_a_signal_right_after_a_restore(t):
    """It ends the program, however soon after its first sign of life it comes."""
    t.chrek("run", "--name", "c", "--stop", "--ready", "after:0.3", "--", "bash", "-c", GROW)
    for _ in range(20):
        again = t.start("restore", "--quiet", "c")
        wait_for("a line", lambda p=again: p.text() or p.poll() is not None)
        assert t.stop(again) in (-signal.SIGTERM, 128 + signal.SIGTERM), again.text()


def test_logs_may_grow(t):
    """What a program writes at its end goes on there, however long it has become; more is told."""
    for name, how, begins in (("append", ">>", False), ("write", ">", False), ("anew", ">", True)):
        log = t.dir / f"{name}.log"
        p = subprocess.Popen(["setsid", "-w", "bash", "-c", f"exec {how}{log} 2>&1 </dev/null; {GROW}"],
                             stdin=subprocess.DEVNULL, env=t.env)
        wait_for("lines", lambda log=log: log.exists() and log.stat().st_size > 6)
        pid = subprocess.run(["pgrep", "-P", str(p.pid), "bash"], capture_output=True, text=True,
                             check=False).stdout.strip() or str(p.pid)
        t.chrek("checkpoint", pid, "--id", name)
        size = log.stat().st_size
        wait_for("more lines", lambda log=log, size=size: log.stat().st_size > size + 10)
        subprocess.run(["kill", "-9", pid], check=True)
        p.wait(20)
        if begins:
            log.write_text("0\n")
        before = log.read_bytes()
        again = t.start("restore", name)
        wait_for("its lines", lambda log=log, n=len(before): log.stat().st_size > n + 6)
        t.stop(again)
        told = f"'{log}' had" in again.text() and "goes on writing at its end" in again.text()
        assert told == (how == ">"), again.text()  # of >> the kernel takes care
        after = log.read_bytes()
        assert after.startswith(before) and b"\0" not in after, (before, after)


def test_data_that_have_changed_are_no_log(t):
    """A file that the program reads, too, must be as it was: refused with a remedy."""
    data = t.dir / "data"
    data.write_text("one\n")
    p = t.run_until_saved("c", "after:0.3", "bash", "-c", f"exec 3<>{data}; sleep 1000", options=["--stop"])
    assert p.wait(20) == 0
    with open(data, "a", encoding="utf-8") as f:
        f.write("two\n")
    done = t.chrek("restore", "c", check=False)
    assert done.returncode == 125 and "another size" in done.stderr and "truncate -s" in done.stderr, done


def test_codes_of_a_wrong_command_line(t):
    """2 for what is written wrongly, 125 for what cannot be had, as everywhere."""
    for words, want in ((("run", "--name", "a/b", "--", "true"), 2), (("restore", "../x"), 2),
                        (("run", "-d", "--log", "/nonexist/x", "--", "true"), 125),
                        (("run", "--mode", "lazy", "--ready", "never", "--", "true"), 0),
                        (("run", "--mode", "quick", "--", "true"), 2),
                        (("restore", "--restore-mode", "lazy", "none"), 125)):
        done = t.chrek(*words, check=False)
        assert done.returncode == want, (words, done)
    done = t.chrek("run", "--", "nosuchcmd", check=False)
    assert "start 'nosuchcmd': No such file" in done.stderr, done.stderr
