"""Identity after a restore: files, notification, the Python module and chrek.h."""

import json
import os
import subprocess

from lib import ROOT, program, wait_for

SCRIPT = """
import os, signal, sys, time
sys.path.insert(0, {python!r})
import chrek
def told(number, frame):
    print('told', chrek.generation(), flush=True)
signal.signal(signal.SIGUSR1, told)
secret = os.urandom(8)
chrek.ready()
print('ready', flush=True)
outcome = chrek.wait()
d = os.environ['CHREK_DIR']
print('outcome', outcome == chrek.RESTORED, chrek.restored(), chrek.generation(), flush=True)
print('id', open(d + '/checkpoint_id').read().strip(), flush=True)
print('env', chrek.environment().get('MARK'), os.environ.get('MARK'), flush=True)
print('random', chrek.random().hex(), secret.hex(), flush=True)
print('files', ' '.join(sorted(os.listdir(d))), flush=True)
time.sleep(1000)
"""


def lines(p, word):
    return [line.split()[1:] for line in p.text().splitlines() if line.startswith(word + " ")]


def test_a_program_learns_that_it_lives_again(t):
    """Python module: ready, wait, generation, the new environment, fresh random bytes, a signal."""
    script = SCRIPT.format(python=str(ROOT / "python"))
    env = dict(t.env, MARK="before")
    p = t.run_until_saved("who", "file:ready", "python3", "-c", script, env=env,
                          options=["--stop", "--notify", "signal:USR1"])
    assert p.wait(30) == 0, p.text()
    seen = []
    for life in ("one", "two"):
        again = t.start("restore", "who", env=dict(t.env, MARK=life))
        wait_for("the files", lambda p=again: lines(p, "files") or p.poll() is not None)
        assert lines(again, "outcome") == [["True", "True", "1"]], again.text()
        assert lines(again, "id") == [["who"]] and lines(again, "env") == [[life, "before"]]
        wait_for("the signal", lambda p=again: lines(p, "told") == [["1"]])
        seen.append(lines(again, "random")[0])
        assert {"generation", "hostname", "env", "identity.json"} <= set(lines(again, "files")[0])
        t.stop(again)
    assert seen[0][0] != seen[1][0] and len(seen[0][0]) == 128, "random bytes are fresh in each life"
    assert seen[0][1] == seen[1][1], "the program's own state is the same in each"


def test_notification_by_command(t):
    """--notify exec: runs a command beside the restored program, in its box."""
    note = t.dir / "note"
    p = t.run_until_saved("n", "after:0.2", "sleep", "1000",
                          options=["--stop", "--notify", f"exec:cat $CHREK_DIR/identity.json > {note}; ps ax >> {note}"])
    assert p.wait(30) == 0
    again = t.start("restore", "n")
    wait_for("the note", lambda: note.exists() and "sleep 1000" in note.read_text())
    text = note.read_text()
    identity = json.loads(text[:text.index("}") + 1])
    assert identity["generation"] == 1 and identity["checkpoint_id"] == "n", identity
    assert len([line for line in text.splitlines() if "chrek" in line and "restore" in line]) <= 1
    t.stop(again)


def test_a_later_generation_is_notified(t):
    """What a checkpoint knows of its program, its notification and command, the next one knows too."""
    note = t.dir / "note"
    p = t.run_until_saved("n", "after:0.2", "sleep", "1000",
                          options=["--stop", "--notify", f"exec:echo again >> {note}"])
    assert p.wait(30) == 0
    for i, name in enumerate(("n", "n1", "n2"), 1):
        again = t.start("restore", name)
        wait_for("the notification", lambda i=i: note.exists() and note.read_text() == "again\n" * i)
        wait_for("the box", lambda n=name: [b for b in t.json("status")["boxes"]
                                            if b["name"] == n and b["command"] == ["sleep", "1000"]])
        t.chrek("checkpoint", name, "--id", f"n{i}", "--stop")
        assert again.wait(30) == 0, again.text()


def test_c_header(t):
    """The C example compiles against chrek.h alone and learns of its restore."""
    exe = t.dir / "ready"
    subprocess.run([program("cc", "gcc"), "-Wall", "-Werror", f"-I{ROOT}/include", "-o", exe,
                    ROOT / "examples/ready.c"], check=True)
    p = t.run_until_saved("c", "file:ready", exe, options=["--stop"])
    assert p.wait(30) == 0, p.text()
    before = p.text()
    again = t.start("restore", "c")
    wait_for("a sign of life", lambda: again.text().strip() or again.poll() is not None)
    assert again.text() != before and "restored" in again.text().lower(), again.text()
    t.stop(again)
