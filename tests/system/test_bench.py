"""`chrek bench`: a user's own application, measured."""

import json
import os

from lib import free_port

SERVER = """
import http.server, sys, time
time.sleep(0.5)
data = bytearray(range(256)) * 40000
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(sum(data[::4096])).encode())
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
NO_RINGS = """
import ctypes
assert ctypes.CDLL(None).syscall(425, 8, ctypes.create_string_buffer(256)) < 0
"""


def test_bench(t):
    """Each way to start is measured, the table and the JSON say so, and nothing is left."""
    place = t.dir / "bench"
    place.mkdir()
    port = free_port()
    command = ("bench", "--dir", place, "--ready", f"http:{port}/")
    run = ("--", "python3", "-c", SERVER, port)
    result = json.loads(t.chrek(*command, "--runs", 2, "--json", *run, timeout=120).stdout)
    assert list(result["starts"]) == ["cold", "plain_criu", "full", "lazy", "workingset"]
    for way, times in result["starts"].items():
        assert len(times["all_running_ns"]) == len(times["all_ready_ns"]) == 2, (way, times)
        assert times["ready_ns"] >= times["running_ns"] > 0, (way, times)
    assert result["starts"]["cold"]["ready_ns"] > 500_000_000
    for kind in ("plain", "packed"):
        assert result["checkpoints"][kind]["memory_bytes"] > 1 << 20, result
    no_rings = ("python3", "-c", NO_RINGS + SERVER, port)
    said = t.chrek(*command, "--runs", 1, "--no-io-uring", "--", *no_rings, timeout=120).stdout
    for word in ("cold start", "plain CRIU", "full", "lazy", "workingset", "SOONER"):
        assert word in said, said
    assert os.listdir(place) == []


def test_bench_refuses(t):
    """A command that is never ready, that ends, that is not there: why, and nothing is left."""
    place = t.dir / "bench"
    place.mkdir()
    command = ("bench", "--dir", place, "--runs", 1, "--ready-timeout", "1s", "--ready", "file:never")
    done = t.chrek(*command, "--", "sleep", 60, check=False)
    assert done.returncode == 6 and "did not become ready" in done.stderr, done
    done = t.chrek(*command, "--", "true", check=False)
    assert done.returncode != 0, done
    done = t.chrek(*command, "--", "/no/such/program", check=False)
    assert done.returncode != 0, done
    done = t.chrek("bench", "--", "true", check=False)
    assert done.returncode == 2 and "--ready is needed" in done.stderr, done
    assert os.listdir(place) == []
