"""Inference engines before and after a checkpoint: what can be had again need not be saved.

    with chrek.engines.vllm(llm):    # asleep inside, awake after
        chrek.ready()
        outcome = chrek.wait()

Each of these is a context manager; engines with asynchronous methods take `async with`.  If the
body ends the process (chrek.wait() does in a checkpoint job, by SystemExit), nothing is woken up.

None of the engines is imported here: what is called is what the engine has been asked to be.
"""

import gc
import inspect
import os

__all__ = ["vllm", "sglang", "trtllm", "torch", "environment", "prepare_environment"]

_ENVIRONMENT = {
    # Memory that NCCL shares between GPUs, and NVLink multicast, cannot be saved by the driver.
    "NCCL_CUMEM_ENABLE": "0",
    "NCCL_P2P_DISABLE": "1",
    "NCCL_NVLS_ENABLE": "0",
    "NCCL_IB_DISABLE": "1",  # CRIU cannot save InfiniBand
    "NCCL_RAS_ENABLE": "0",  # holds a connection of its own
    # A monitor that finds its heart has stood still would end the restored process.
    "TORCH_NCCL_ENABLE_MONITORING": "0",
    "TORCH_NCCL_DUMP_ON_TIMEOUT": "0",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}


def environment():
    """What must be set before an engine with NCCL starts, as a dict."""
    return dict(_ENVIRONMENT)


def prepare_environment():
    """Set it, where nothing else is set.  Call this before the engine is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


class _Quiet:
    """Calls of an engine before and after."""

    def __init__(self, engine, before, after):
        self._engine, self._before, self._after = engine, before, after

    def _run(self, calls):
        for call in calls:
            answer = call()
            if inspect.isawaitable(answer):
                if inspect.iscoroutine(answer):
                    answer.close()
                raise TypeError("this engine's methods are asynchronous: use `async with`")

    @staticmethod
    async def _await(calls):
        for call in calls:
            answer = call()
            if inspect.isawaitable(answer):
                await answer

    @staticmethod
    def _ends(kind):
        return kind is not None and issubclass(kind, SystemExit)

    def __enter__(self):
        self._run(self._before)
        return self._engine

    def __exit__(self, kind, value, trace):
        if not self._ends(kind):
            self._run(self._after)

    async def __aenter__(self):
        await self._await(self._before)
        return self._engine

    async def __aexit__(self, kind, value, trace):
        if not self._ends(kind):
            await self._await(self._after)


def _methods(engine, *names):
    """Those of the methods that this version of the engine has."""
    return [getattr(engine, name) for name in names if callable(getattr(engine, name, None))]


def vllm(llm, level=1):
    """vLLM (LLM, AsyncLLM): started with enable_sleep_mode (--enable-sleep-mode).

    level 1 keeps the weights, in host memory; 2 drops them, too, and they are loaded again.
    """
    before = _methods(llm, "reset_prefix_cache") + [lambda: llm.sleep(level=level)]
    return _Quiet(llm, before, [llm.wake_up])


def sglang(engine):
    """SGLang (Engine): started with enable_memory_saver."""
    return _Quiet(engine, _methods(engine, "flush_cache") + [engine.release_memory_occupation],
                  [engine.resume_memory_occupation])


def trtllm(llm):
    """TensorRT-LLM (LLM): with a sleep_config its memory is released, else only rubbish is."""
    asleep = getattr(getattr(llm, "args", None), "sleep_config", None) is not None
    return _Quiet(llm, [gc.collect] + (_methods(llm, "release") if asleep else []),
                  _methods(llm, "resume") if asleep else [])


def torch(restart=None):
    """Plain PyTorch: running work ends, unused memory is given back, process groups end.

    restart  makes the process groups again; default: init_process_group() as it was, its address
             taken from the environment
    """
    import torch as module  # pylint: disable=import-outside-toplevel
    groups = getattr(module, "distributed", None)
    group = {}

    def end_groups():
        if groups and groups.is_available() and groups.is_initialized():
            group.update(backend=groups.get_backend(), rank=groups.get_rank(),
                         world_size=groups.get_world_size())
            groups.destroy_process_group()

    def start_groups():
        if group:
            (restart or (lambda: groups.init_process_group(**group)))()

    before = [gc.collect, end_groups]
    if module.cuda.is_available():
        before = [gc.collect, module.cuda.synchronize, end_groups, module.cuda.empty_cache]
    return _Quiet(module, before, [start_groups])
