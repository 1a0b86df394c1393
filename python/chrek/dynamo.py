"""A worker of the ChReK contract: load, be frozen, serve in another life, with another identity.

    chrek.dynamo.worker(build, serve, quiet=chrek.engines.vllm)

`build()` makes the engine and connects to nobody; `serve(engine)` registers and serves.  Between
them the checkpoint is made, or the process is a restored one.  Without chrek and outside a
checkpoint job it is `serve(build())`.
"""

import contextlib
import json
import os
import random
import sys

import chrek

__all__ = ["worker", "refresh"]

_PODINFO = {
    "pod_name": "POD_NAME", "pod_uid": "POD_UID", "pod_namespace": "POD_NAMESPACE",
    "dyn_namespace": "DYN_NAMESPACE", "dyn_component": "DYN_COMPONENT",
    "dyn_parent_dgd_name": "DYN_PARENT_DGD_K8S_NAME",
    "dyn_parent_dgd_namespace": "DYN_PARENT_DGD_K8S_NAMESPACE",
    "dyn_discovery_backend": "DYN_DISCOVERY_BACKEND",
}


def _is_saved():
    """Whether this job's checkpoint is there already: a second attempt has nothing to do."""
    place = os.environ.get("DYN_CHECKPOINT_LOCATION")
    if not place or os.environ.get("DYN_CHECKPOINT_STORAGE_TYPE", "pvc") != "pvc":
        return False
    try:
        with open(os.path.join(place, "checkpoint.done"), encoding="utf-8") as f:
            done = json.load(f)
    except (OSError, ValueError):
        return False
    return isinstance(done, dict) and done.get("success") is True


def _podinfo(folder):
    found = {}
    for name, variable in _PODINFO.items():
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as f:
                value = f.read().strip()
        except OSError:
            continue
        if value:
            found[variable] = value
    return found


def _context():
    """What the placeholder of a Dynamo snapshot has left: {"env": {name: value or null}}."""
    folder = os.environ.get("SNAPSHOT_CONTROL_DIR") or os.environ.get("DYN_SNAPSHOT_CONTROL_DIR")
    if not folder:
        return {}
    try:
        with open(os.path.join(folder, "restore-context.json"), encoding="utf-8") as f:
            variables = json.load(f)["env"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return variables if isinstance(variables, dict) else {}


def refresh(podinfo="/etc/podinfo"):
    """Take the new identity: environment variables, and a seed that no other copy has.

    In this order, the last wins: the environment that chrek restored with, the pod's downward API,
    Dynamo's restore-context.json (null removes a variable).
    """
    os.environ.update({k: v for k, v in chrek.environment().items() if k})
    os.environ.update(_podinfo(podinfo))
    for name, value in _context().items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = str(value)
    random.seed(chrek.random())


def worker(build, serve, quiet=None, podinfo="/etc/podinfo"):
    """Run a worker; returns what serve() returns.

    quiet  makes of the engine the context manager that it is frozen in (chrek.engines)
    """
    job = bool(os.environ.get("DYN_CHECKPOINT_SIGNAL_FILE"))
    if job and _is_saved():
        print("the checkpoint is there already", file=sys.stderr, flush=True)
        raise SystemExit(0)
    engine = build()
    with quiet(engine) if quiet else contextlib.nullcontext():
        chrek.ready()
        if job:
            print("CHECKPOINT_READY: the engine is loaded, nothing is connected", flush=True)
        outcome = chrek.wait()
        if outcome == chrek.RESTORED:
            refresh(podinfo)
    return serve(engine)
