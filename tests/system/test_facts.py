"""What CRIU has found out about the machine is found out once."""

import os
import pathlib
import subprocess

from lib import find

KNOWN = pathlib.Path("/run/chrek/criu")
CRIU = pathlib.Path(find("CHREK_CRIU", "build/criu/sbin/criu"))
LOADED = "Loaded kdat cache"


def log_of_checkpoint(t, name):
    p = subprocess.Popen(["sleep", "1000"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        t.chrek("checkpoint", "--format", "plain", "--id", name, p.pid)
    finally:
        p.kill()
        p.wait()
    return (t.store / name / "dump.log").read_text(errors="replace")


def files():
    boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {f for f in KNOWN.iterdir() if f.name.startswith(f"{boot}-{CRIU.stat().st_ino}-")}


def test_known(t):
    """Every CRIU but the first of a boot starts with what is known; a damaged file is made anew."""
    assert (CRIU.parents[1] / "lib/facts.so").exists()
    log_of_checkpoint(t, "first")
    assert LOADED in log_of_checkpoint(t, "second")
    before = files()
    assert before and os.stat(KNOWN).st_mode & 0o777 == 0o700
    for f in before:
        f.write_bytes(f.read_bytes()[:100])
    log_of_checkpoint(t, "damaged")
    assert LOADED in log_of_checkpoint(t, "again")
    assert all(f.stat().st_size > 100 for f in files()) and files() == before
