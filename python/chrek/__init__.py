"""What a program under chrek can say and ask.

    import chrek

    load_everything()
    chrek.ready()                        # "freeze me now"
    if chrek.wait() == chrek.RESTORED:   # this is another life of the process
        reseed_and_reconnect()
    serve()

Nothing here needs chrek to be there: without it ready() does nothing and wait() returns ALONE at
once, so the same program runs anywhere.

All of it is plain files: the directory $CHREK_DIR holds `generation`, `checkpoint_id`,
`restored_at`, `hostname`, `env`, `random`, `identity.json` and `outcome`; the program creates
`ready`.  Without that variable it is /run/chrek/app, but only in a box of chrek's or in a job of the
ChReK contract: elsewhere such a directory is what a program before us has left.  In a checkpoint job or restore pod of the ChReK contract the files named
by DYN_CHECKPOINT_READY_FILE, DYN_CHECKPOINT_SIGNAL_FILE and DYN_RESTORE_MARKER_FILE are honoured,
and wait() ends the process (SystemExit) once the job's checkpoint is complete.

For inference engines there are chrek.engines (before and after) and chrek.dynamo (a whole worker).

Only the standard library is used; Python 3.8 or newer.
"""

import json
import os
import sys
import time

__all__ = ["ready", "wait", "restored", "generation", "environment", "random", "identity",
           "RESTORED", "SAVED", "NOT_SAVED", "ALONE"]
__version__ = "0.1.0"

RESTORED = "restored"    #: this is a restored process: take the new identity, reconnect, serve
SAVED = "saved"          #: the checkpoint is made and this is still the original process
NOT_SAVED = "not saved"  #: the checkpoint failed; this is still the original process
ALONE = "alone"          #: nobody is there to make a checkpoint

_DIR = "/run/chrek/app"
_MARKER = "/tmp/dynamo-restored"
_RANDOM_BYTES = 64
_PAUSE = 0.01

_remembered = None  # (generation, outcome) at ready(), what wait() compares with


def _in_box():
    """A box has its own file system there."""
    try:
        own = os.path.dirname(_DIR)
        return os.stat(own).st_dev != os.stat(os.path.dirname(own)).st_dev
    except OSError:
        return False


def _path(name):
    """Of a file in the application directory; None when chrek is not there."""
    folder = os.environ.get("CHREK_DIR") or (_DIR if _is_job() or _in_box() else None)
    return folder and os.path.join(folder, name)


def _read(path):
    if path is None:
        return None
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


def _write(path, text):
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="utf-8") as f:
            f.write(text)
        os.replace(temporary, path)
    except OSError:
        try:
            os.unlink(temporary)
        except OSError:
            pass
        raise


def _is_job():
    return bool(os.environ.get("DYN_CHECKPOINT_SIGNAL_FILE"))


def _has_dir():
    folder = _path("")
    return folder is not None and os.path.isdir(folder)


def _marker():
    marker = os.environ.get("DYN_RESTORE_MARKER_FILE") or _MARKER
    return _is_job() and os.path.exists(marker)


def _outcome_key():
    path = _path("outcome")
    try:
        st = os.stat(path) if path else None
    except OSError:
        st = None
    if st is None:
        return None
    return st.st_ino, st.st_mtime_ns


def _remember():
    global _remembered
    _remembered = generation(), _outcome_key()


def ready():
    """Say that the program may be frozen now.

    Everything should be loaded and no connection to the outside be open.
    `chrek run --ready file:ready` waits for this.
    """
    _remember()  # before anybody can act on it
    if _has_dir():
        _write(_path("ready"), "ready")
    if os.environ.get("DYN_CHECKPOINT_READY_FILE"):
        _write(os.environ["DYN_CHECKPOINT_READY_FILE"], "ready")


def _job_outcome():
    text = _read(os.environ["DYN_CHECKPOINT_SIGNAL_FILE"])
    if not text:
        return None  # an agent that does not rename writes it after creating it
    try:
        done = json.loads(text)
    except ValueError:
        done = None
    if isinstance(done, dict) and done.get("success") is True:
        return SAVED
    why = done.get("error") if isinstance(done, dict) else "the signal file is not JSON"
    print(f"chrek: the checkpoint failed: {why or 'no reason given'}", file=sys.stderr)
    return NOT_SAVED


def _event():
    before, outcome = _remembered
    now = generation()
    if (now and now != before) or _marker():
        return RESTORED  # before the signal file, which may be an old one
    key = _outcome_key()
    if key is not None and key != outcome:
        text = _read(_path("outcome"))
        if text:
            return SAVED if text.startswith(b"saved") else NOT_SAVED
    if not _is_job():
        return None
    event = _job_outcome()
    if event:
        raise SystemExit(0 if event == SAVED else 1)
    return None


def wait(timeout=None):
    """Wait until the program shall go on, and say why: RESTORED, SAVED, NOT_SAVED or ALONE.

    timeout: seconds, None = for ever; when it has passed the result is None.  The time that a
    process spends in a checkpoint may count.

    In a checkpoint job of the ChReK contract the process has nothing more to do once its
    checkpoint is complete: SystemExit is raised, with status 0, or 1 when the checkpoint failed.
    """
    global _remembered
    if not _has_dir() and not _is_job():
        return ALONE
    if _remembered is None:
        _remember()
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        event = _event()
        if event:
            _remembered = None
            return event
        if end is not None and time.monotonic() >= end:
            return None
        time.sleep(_PAUSE)


def generation():
    """How often this line of checkpoints has been restored.

    0 in a process that was started cold, 1 and more in a restored one, None without chrek.
    """
    text = _read(_path("generation"))
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def restored():
    """Whether this process has been restored from a checkpoint."""
    return bool(generation()) or _marker()


def identity():
    """Generation, checkpoint_id, restored_at and hostname as a dict; empty without chrek."""
    text = _read(_path("identity.json"))
    return {} if text is None else json.loads(text)


def environment():
    """The environment of whoever restored this process, as a dict.

    os.environ still has the environment of the first start.  Without chrek it is os.environ's.
    Raises PermissionError for other users than the one who started the program.
    """
    text = _read(_path("env"))
    if text is None:
        return dict(os.environ)
    variables = {}
    for line in text.split(b"\n"):
        name, equals, value = line.partition(b"=")
        if equals:
            parts = value.split(b"\\\\")
            value = b"\\".join(part.replace(b"\\n", b"\n") for part in parts)
            variables[os.fsdecode(name)] = os.fsdecode(value)
    return variables


def random(size=_RANDOM_BYTES):
    """Bytes to seed generators with that no other restore of the same checkpoint gets.

    The same ones until the next restore; at most 64.  Every generator whose state is in memory
    must be seeded again after a restore: random.seed(chrek.random()).
    """
    if not 0 <= size <= _RANDOM_BYTES:
        raise ValueError(f"size must be 0 to {_RANDOM_BYTES}")
    data = _read(_path("random"))
    return os.urandom(size) if data is None else data[:size]
