#!/usr/bin/env python3
"""An inference worker that is loaded once and restored ever after: vLLM behind plain HTTP.

    chrek run --name llm --ready file:ready -- python3 examples/gpu/worker.py MODEL

On Kubernetes: worker.yaml.
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import chrek.dynamo
import chrek.engines

chrek.engines.prepare_environment()  # before the engine is imported


def build():
    from vllm import LLM
    return LLM(sys.argv[1], enable_sleep_mode=True, enable_prefix_caching=False)


def serve(llm):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            prompt = self.rfile.read(int(self.headers["Content-Length"])).decode()
            text = llm.generate([prompt])[0].outputs[0].text
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"text": text}).encode())

    HTTPServer(("", 8000), Handler).serve_forever()


if __name__ == "__main__":  # the engine starts processes of its own
    chrek.dynamo.worker(build, serve, quiet=chrek.engines.vllm)
