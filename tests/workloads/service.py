"""A service that is slow to start: loads data, threads, a pool of child processes.

service.py PORT MEGABYTES [WARMUP_SECONDS]
GET / counts requests; /sum is a checksum of all data; /pool asks the children; /stop ends it.
"""

import hashlib
import http.server
import multiprocessing
import random
import sys
import threading
import time


def child(pipe):
    seen = 0
    while True:
        value = pipe.recv()
        if value is None:
            return
        seen += 1
        pipe.send((value * value, seen))


def load(megabytes):
    rng = random.Random(42)
    block = rng.randbytes(1 << 20)
    return [bytearray(block[i % 1000:] + block[:i % 1000]) for i in range(megabytes)]


def main():
    port, megabytes = int(sys.argv[1]), int(sys.argv[2])
    warmup = float(sys.argv[3]) if len(sys.argv) > 3 else 0
    data = load(megabytes)
    table = {f"key{i}": i for i in range(200_000)}
    time.sleep(warmup)
    state = {"requests": 0, "beats": 0}
    lock = threading.Lock()
    pipes = []
    for _ in range(3):
        ours, theirs = multiprocessing.Pipe()
        multiprocessing.Process(target=child, args=(theirs,), daemon=True).start()
        pipes.append(ours)

    def beat():
        while True:
            state["beats"] += 1
            time.sleep(0.01)

    for _ in range(4):
        threading.Thread(target=beat, daemon=True).start()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with lock:
                state["requests"] += 1
                answer = f"{state['requests']}"
                if self.path == "/sum":
                    digest = hashlib.sha256()
                    for block in data:
                        digest.update(block)
                    answer = f"{digest.hexdigest()} {sum(table.values())}"
                elif self.path == "/pool":
                    for i, pipe in enumerate(pipes):
                        pipe.send(i + 2)
                    answer = " ".join(str(pipe.recv()) for pipe in pipes)
                elif self.path == "/stop":
                    threading.Thread(target=server.shutdown).start()
            body = answer.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print("ready", flush=True)
    server.serve_forever()
    for pipe in pipes:
        pipe.send(None)


main()
