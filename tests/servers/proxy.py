"""A TCP proxy on 127.0.0.1 that counts what goes to the server and what comes back."""

import contextlib
import socket
import threading


class Counting:
    def __init__(self, port):
        self.target = port
        self.sent = self.received = 0
        self.lock = threading.Lock()

    def __enter__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.close()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            threading.Thread(target=self.pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self.pump, args=(server, client, True), daemon=True).start()

    def pump(self, source, sink, from_server):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 18):
                with self.lock:
                    if from_server:
                        self.received += len(data)
                    else:
                        self.sent += len(data)
                sink.sendall(data)
        for s in (source, sink):
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
