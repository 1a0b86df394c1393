"""chrek.engines and chrek.dynamo against stand-ins of the engines' interfaces."""

import asyncio
import json
import os
import pathlib
import sys
import tempfile
import threading
import types
import unittest
from unittest import mock

import chrek
import chrek.dynamo
import chrek.engines


class Calls:
    """An engine that notes what is called, in order."""

    def __init__(self, *methods, asynchronous=False, fail=()):
        self.calls = []
        for name in methods:
            setattr(self, name, self._method(name, asynchronous, name in fail))

    def _method(self, name, asynchronous, fails):
        def note(*args, **kwargs):
            self.calls.append((name, *args, *sorted(kwargs.items())))
            if fails:
                raise RuntimeError(name)

        async def note_later(*args, **kwargs):
            note(*args, **kwargs)
        return note_later if asynchronous else note

    def names(self):
        return [c[0] for c in self.calls]


class Vllm(unittest.TestCase):
    def test_sleeps_inside_and_wakes_after(self):
        llm = Calls("reset_prefix_cache", "sleep", "wake_up")
        with chrek.engines.vllm(llm, level=2) as inside:
            self.assertIs(inside, llm)
            self.assertEqual(llm.calls, [("reset_prefix_cache",), ("sleep", ("level", 2))])
        self.assertEqual(llm.names(), ["reset_prefix_cache", "sleep", "wake_up"])

    def test_an_older_one_without_prefix_cache(self):
        llm = Calls("sleep", "wake_up")
        with chrek.engines.vllm(llm):
            pass
        self.assertEqual(llm.calls, [("sleep", ("level", 1)), ("wake_up",)])

    def test_wakes_after_a_failure_but_not_at_the_end_of_the_process(self):
        llm = Calls("sleep", "wake_up")
        with self.assertRaises(ValueError):
            with chrek.engines.vllm(llm):
                raise ValueError
        self.assertEqual(llm.names(), ["sleep", "wake_up"])
        llm = Calls("sleep", "wake_up")
        with self.assertRaises(SystemExit):
            with chrek.engines.vllm(llm):
                raise SystemExit(0)
        self.assertEqual(llm.names(), ["sleep"])

    def test_one_that_does_not_fall_asleep_is_no_ready_worker(self):
        llm = Calls("sleep", "wake_up", fail=("sleep",))
        with self.assertRaises(RuntimeError):
            with chrek.engines.vllm(llm):
                self.fail("it is awake")

    def test_asynchronous_methods(self):
        llm = Calls("reset_prefix_cache", "sleep", "wake_up", asynchronous=True)
        with self.assertRaisesRegex(TypeError, "async with"):
            with chrek.engines.vllm(llm):
                self.fail("nothing has been awaited")

        async def main():
            async with chrek.engines.vllm(llm):
                self.assertEqual(llm.names(), ["reset_prefix_cache", "sleep"])
            with self.assertRaises(SystemExit):
                async with chrek.engines.vllm(llm):
                    raise SystemExit(0)
        asyncio.run(main())
        self.assertEqual(llm.names().count("wake_up"), 1)


class Others(unittest.TestCase):
    def test_sglang(self):
        engine = Calls("flush_cache", "release_memory_occupation", "resume_memory_occupation")
        with chrek.engines.sglang(engine):
            self.assertEqual(engine.names(), ["flush_cache", "release_memory_occupation"])
        self.assertEqual(engine.names()[2:], ["resume_memory_occupation"])

    def test_trtllm_releases_only_what_it_can_have_again(self):
        llm = Calls("release", "resume")
        with chrek.engines.trtllm(llm):
            pass
        self.assertEqual(llm.calls, [])
        llm.args = types.SimpleNamespace(sleep_config=object())
        with chrek.engines.trtllm(llm):
            self.assertEqual(llm.names(), ["release"])
        self.assertEqual(llm.names(), ["release", "resume"])

    def torch(self, initialized, cuda=True):
        module = types.ModuleType("torch")
        module.calls = Calls("synchronize", "empty_cache", "destroy_process_group",
                             "init_process_group")
        module.cuda = types.SimpleNamespace(is_available=lambda: cuda,
                                            synchronize=module.calls.synchronize,
                                            empty_cache=module.calls.empty_cache)
        module.distributed = types.SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: initialized,
            get_backend=lambda: "nccl", get_rank=lambda: 1, get_world_size=lambda: 2,
            destroy_process_group=module.calls.destroy_process_group,
            init_process_group=module.calls.init_process_group)
        return module

    def test_torch(self):
        module = self.torch(True)
        with mock.patch.dict(sys.modules, torch=module):
            with chrek.engines.torch():
                self.assertEqual(module.calls.names(),
                                 ["synchronize", "destroy_process_group", "empty_cache"])
        self.assertEqual(module.calls.calls[3:], [("init_process_group", ("backend", "nccl"),
                                                   ("rank", 1), ("world_size", 2))])

    def test_torch_with_groups_of_ones_own_making(self):
        module, made = self.torch(True), []
        with mock.patch.dict(sys.modules, torch=module):
            with chrek.engines.torch(restart=lambda: made.append(1)):
                pass
        self.assertEqual(made, [1])
        self.assertNotIn("init_process_group", module.calls.names())

    def test_torch_without_gpu_and_groups(self):
        module = self.torch(False, cuda=False)
        with mock.patch.dict(sys.modules, torch=module):
            with chrek.engines.torch():
                pass
        self.assertEqual(module.calls.calls, [])

    def test_environment_is_set_where_nothing_is(self):
        with mock.patch.dict(os.environ, {"NCCL_P2P_DISABLE": "0"}, clear=True):
            chrek.engines.prepare_environment()
            self.assertEqual(os.environ["NCCL_P2P_DISABLE"], "0")
            self.assertEqual(os.environ["NCCL_NVLS_ENABLE"], "0")
            self.assertEqual(set(chrek.engines.environment()), set(os.environ))


class Worker(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DYN_", "CHREK_", "POD_"))}
        patch = mock.patch.dict(os.environ, {**clean, "CHREK_DIR": str(self.dir / "absent")}, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        chrek._remembered = None
        self.engine = Calls("sleep", "wake_up")
        self.order = []

    def job(self):
        os.environ.update(DYN_CHECKPOINT_READY_FILE=str(self.dir / "ready"),
                          DYN_CHECKPOINT_SIGNAL_FILE=str(self.dir / "signal"),
                          DYN_RESTORE_MARKER_FILE=str(self.dir / "marker"),
                          DYN_CHECKPOINT_LOCATION=str(self.dir / "ckpt"),
                          DYN_CHECKPOINT_STORAGE_TYPE="pvc")

    def run_worker(self, quiet=chrek.engines.vllm):
        def build():
            self.order.append("build")
            return self.engine

        def serve(engine):
            self.order.append(("serve", *engine.names()))
            return 7
        return chrek.dynamo.worker(build, serve, quiet, podinfo=str(self.dir / "podinfo"))

    def when_ready(self, name, text):
        def act():
            while not (self.dir / "ready").exists():
                pass
            (self.dir / f".{name}").write_text(text)
            (self.dir / f".{name}").rename(self.dir / name)
        thread = threading.Thread(target=act)
        thread.start()
        self.addCleanup(thread.join)

    def test_without_chrek_it_just_serves(self):
        self.assertEqual(self.run_worker(quiet=None), 7)
        self.assertEqual(self.order, ["build", ("serve",)])

    def test_a_job_ends_when_its_checkpoint_is_complete(self):
        self.job()
        self.when_ready("signal", json.dumps({"success": True}))
        with self.assertRaises(SystemExit) as end:
            self.run_worker()
        self.assertEqual(end.exception.code, 0)
        self.assertEqual((self.order, self.engine.names()), (["build"], ["sleep"]))
        self.assertEqual((self.dir / "ready").read_text(), "ready")

    def test_a_job_whose_checkpoint_failed_says_so(self):
        self.job()
        self.when_ready("signal", json.dumps({"success": False, "error": "no"}))
        with self.assertRaises(SystemExit) as end:
            self.run_worker()
        self.assertEqual(end.exception.code, 1)

    def test_a_second_attempt_of_a_job_has_nothing_to_do(self):
        self.job()
        (self.dir / "ckpt").mkdir()
        for text, builds in (("{\"success\": true}", False), ("{\"success\": false}", True),
                             ("2026-01-01", True)):
            (self.dir / "ckpt/checkpoint.done").write_text(text)
            self.order.clear()
            (self.dir / "signal").write_text("{\"success\": true}")
            with self.assertRaises(SystemExit):
                self.run_worker()
            self.assertEqual(self.order == ["build"], builds)

    def test_a_restored_worker_has_its_new_identity_before_it_serves(self):
        self.job()
        control = self.dir / "control"
        control.mkdir()
        (self.dir / "podinfo").mkdir()
        (self.dir / "podinfo/pod_name").write_text("worker-2\n")
        (self.dir / "podinfo/dyn_namespace").write_text("")
        (control / "restore-context.json").write_text(json.dumps(
            {"env": {"NATS_SERVER": "nats://new", "ETCD_ENDPOINTS": None}}))
        os.environ.update(POD_NAME="worker-1", ETCD_ENDPOINTS="old", DYN_NAMESPACE="kept",
                          SNAPSHOT_CONTROL_DIR=str(control))
        self.when_ready("marker", "restored")
        with mock.patch("random.seed") as seed:
            self.assertEqual(self.run_worker(), 7)
        self.assertEqual(self.order, ["build", ("serve", "sleep", "wake_up")])
        self.assertEqual(os.environ["POD_NAME"], "worker-2")
        self.assertEqual(os.environ["NATS_SERVER"], "nats://new")
        self.assertEqual(os.environ["DYN_NAMESPACE"], "kept")
        self.assertNotIn("ETCD_ENDPOINTS", os.environ)
        self.assertEqual(len(seed.call_args[0][0]), 64)

    def test_a_context_that_makes_no_sense_changes_nothing(self):
        os.environ["DYN_SNAPSHOT_CONTROL_DIR"] = str(self.dir)
        for text in ("", "[]", "{\"env\": 3}", "{}"):
            (self.dir / "restore-context.json").write_text(text)
            before = dict(os.environ)
            chrek.dynamo.refresh(str(self.dir))
            self.assertEqual(dict(os.environ), before)


if __name__ == "__main__":
    unittest.main()
