"""The Python module, and chrek.h against compilers, over directories that play chrek's part."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import unittest
from unittest import mock

import chrek

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.dir = pathlib.Path(folder.name)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("DYN_", "CHREK_"))}
        patch = mock.patch.dict(os.environ, {**clean, "CHREK_DIR": str(self.dir)}, clear=True)
        patch.start()
        self.addCleanup(patch.stop)
        chrek._remembered = None

    def put(self, name, text):
        temporary = self.dir / f".{name}"
        if isinstance(text, str):
            text = text.encode()
        temporary.write_bytes(text)
        temporary.rename(self.dir / name)

    def later(self, function, *args):
        thread = threading.Timer(0.05, function, args)
        thread.start()
        self.addCleanup(thread.join)

    def job(self):
        os.environ["DYN_CHECKPOINT_READY_FILE"] = str(self.dir / "job-ready")
        os.environ["DYN_CHECKPOINT_SIGNAL_FILE"] = str(self.dir / "signal")
        os.environ["DYN_RESTORE_MARKER_FILE"] = str(self.dir / "marker")
        os.environ["CHREK_DIR"] = str(self.dir / "absent")


class Alone(Case):
    def setUp(self):
        super().setUp()
        os.environ["CHREK_DIR"] = str(self.dir / "absent")

    def test_ready_does_nothing_and_wait_returns_at_once(self):
        chrek.ready()
        self.assertEqual(chrek.wait(), chrek.ALONE)
        self.assertEqual(list(self.dir.iterdir()), [])

    def test_what_a_program_before_us_has_left_does_not_count(self):
        app = self.dir / "chrek" / "app"
        app.mkdir(parents=True)
        (app / "generation").write_text("14\n")
        del os.environ["CHREK_DIR"]
        with mock.patch.object(chrek, "_DIR", str(app)):
            chrek.ready()
            self.assertFalse((app / "ready").exists())
            self.assertEqual(chrek.wait(), chrek.ALONE)
            self.assertIsNone(chrek.generation())
            with mock.patch.object(chrek, "_in_box", lambda: True):
                self.assertEqual(chrek.generation(), 14)

    def test_answers_are_those_of_the_process_itself(self):
        self.assertIsNone(chrek.generation())
        self.assertFalse(chrek.restored())
        self.assertEqual(chrek.environment(), dict(os.environ))
        self.assertEqual(chrek.identity(), {})
        self.assertEqual(len(chrek.random()), 64)


class Box(Case):
    def setUp(self):
        super().setUp()
        self.put("generation", "0\n")

    def test_ready_writes_the_file(self):
        chrek.ready()
        self.assertTrue((self.dir / "ready").exists())

    def test_a_timeout_is_none(self):
        chrek.ready()
        self.assertIsNone(chrek.wait(timeout=0.02))

    def test_a_saved_original_goes_on(self):
        chrek.ready()
        self.later(self.put, "outcome", "saved web\n")
        self.assertEqual(chrek.wait(timeout=5), chrek.SAVED)
        self.assertFalse(chrek.restored())

    def test_a_failed_checkpoint_is_told(self):
        chrek.ready()
        self.later(self.put, "outcome", "failed no space left\n")
        self.assertEqual(chrek.wait(timeout=5), chrek.NOT_SAVED)

    def test_an_old_outcome_does_not_count(self):
        self.put("outcome", "saved web\n")
        chrek.ready()
        self.assertIsNone(chrek.wait(timeout=0.05))
        self.later(self.put, "outcome", "saved web\n")
        self.assertEqual(chrek.wait(timeout=5), chrek.SAVED)

    def test_a_new_generation_is_a_restore(self):
        chrek.ready()
        self.later(self.put, "generation", "1\n")
        self.assertEqual(chrek.wait(timeout=5), chrek.RESTORED)
        self.assertTrue(chrek.restored())
        self.assertEqual(chrek.generation(), 1)

    def test_a_restored_process_can_be_saved_and_restored_again(self):
        self.put("generation", "1\n")
        chrek.ready()
        self.assertIsNone(chrek.wait(timeout=0.05))
        self.later(self.put, "generation", "2\n")
        self.assertEqual(chrek.wait(timeout=5), chrek.RESTORED)

    def test_an_outcome_between_ready_and_wait_is_seen(self):
        chrek.ready()
        self.put("outcome", "saved web\n")
        self.assertEqual(chrek.wait(timeout=0), chrek.SAVED)

    def test_the_environment_is_unescaped(self):
        self.put("env", b"A=1\nB=two\\nlines\nC=back\\\\nslash\nD=\nE=x=y\nF=\xff\n")
        self.assertEqual(chrek.environment(), {
            "A": "1", "B": "two\nlines", "C": "back\\nslash", "D": "", "E": "x=y",
            "F": os.fsdecode(b"\xff")})

    def test_random_bytes_come_from_the_file(self):
        self.put("random", bytes(range(64)))
        self.assertEqual(chrek.random(), bytes(range(64)))
        self.assertEqual(chrek.random(4), b"\0\1\2\3")
        with self.assertRaises(ValueError):
            chrek.random(65)

    def test_identity(self):
        self.put("identity.json", json.dumps({"generation": 2, "hostname": "h"}))
        self.assertEqual(chrek.identity()["hostname"], "h")


class Job(Case):
    """The worker protocol of the ChReK contract."""

    def setUp(self):
        super().setUp()
        self.job()

    def test_ready_writes_the_contract_s_text(self):
        chrek.ready()
        self.assertEqual((self.dir / "job-ready").read_text(), "ready")

    def test_success_ends_the_process_with_status_0(self):
        chrek.ready()
        self.later(self.put, "signal", '{\n  "checkpoint_id": "a",\n  "success": true\n}')
        with self.assertRaises(SystemExit) as end:
            chrek.wait(timeout=5)
        self.assertEqual(end.exception.code, 0)

    def test_failure_ends_the_process_with_status_1(self):
        for text in ('{"success": false, "error": "no"}', "2026-01-31", "[]"):
            chrek.ready()
            self.put("signal", text)
            with self.subTest(text), mock.patch("sys.stderr"), \
                    self.assertRaises(SystemExit) as end:
                chrek.wait(timeout=5)
            self.assertEqual(end.exception.code, 1)

    def test_an_empty_signal_file_is_not_there_yet(self):
        chrek.ready()
        self.put("signal", "")
        self.assertIsNone(chrek.wait(timeout=0.02))

    def test_the_marker_counts_before_the_signal_file(self):
        chrek.ready()
        self.put("signal", '{"success": true}')
        self.put("marker", "restored")
        self.assertEqual(chrek.wait(timeout=5), chrek.RESTORED)
        self.assertTrue(chrek.restored())

    def test_the_marker_counts_in_a_job_only(self):
        self.put("marker", "restored")
        del os.environ["DYN_CHECKPOINT_SIGNAL_FILE"]
        self.assertFalse(chrek.restored())


class Header(unittest.TestCase):
    def compile(self, compiler, *options):
        path = shutil.which(compiler)
        if not path:
            self.skipTest(f"machine: no {compiler}")
        done = subprocess.run([path, *options, "-Wall", "-Wextra", "-Wconversion", "-pedantic",
                               "-Werror", "-fsyntax-only", "-I", ROOT / "include", "-"],
                              input="#include <chrek.h>\n", capture_output=True, text=True,
                              check=False)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_it_is_c99(self):
        self.compile("cc", "-x", "c", "-std=c99", "-D_XOPEN_SOURCE=700")

    def test_it_is_gnu17(self):
        self.compile("cc", "-x", "c", "-std=gnu17")

    def test_it_is_cplusplus(self):
        self.compile("c++", "-x", "c++", "-std=c++11")

    def test_the_example_in_c_compiles_and_runs_alone(self):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "ready"
            subprocess.run(["cc", "-Wall", "-Wextra", "-Werror", "-I", ROOT / "include",
                            "-o", program, ROOT / "examples/ready.c"], check=True)
            env = {"USER": "somebody", "CHREK_DIR": folder + "/absent"}
            out = subprocess.run([program], env=env, check=True, capture_output=True, text=True)
            self.assertIn("started by somebody", out.stdout)

    def test_the_example_in_python_runs_alone(self):
        env = {"PYTHONPATH": str(ROOT / "python"), "USER": "somebody", "CHREK_DIR": "/nowhere"}
        out = subprocess.run([sys.executable, ROOT / "examples/ready.py"], env=env, check=True,
                             capture_output=True, text=True)
        self.assertIn("user somebody has started", out.stdout)


if __name__ == "__main__":
    unittest.main()
