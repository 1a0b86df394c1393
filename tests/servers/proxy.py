"""TCP proxies on 127.0.0.1: they count what goes to the server and what comes back, or break off."""

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


class Cutting(Counting):
    """Ends every connection each time that so many bytes have passed, and after the last for good."""

    def __init__(self, port, cuts, dies):
        super().__init__(port)
        self.cuts, self.dies, self.open = sorted(cuts), dies, set()

    def pump(self, source, sink, from_server):
        with self.lock:
            self.open |= {source, sink}
            dead = self.dies and not self.cuts
        if dead:
            self.cut()
        super().pump(source, self.Guarded(self, sink), from_server)

    def cut(self):
        with self.lock:
            connections, self.open = self.open, set()
        for s in connections:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    class Guarded:
        def __init__(self, proxy, sink):
            self.proxy, self.sink = proxy, sink

        def sendall(self, data):
            with self.proxy.lock:
                passed = self.proxy.sent + self.proxy.received
                due = bool(self.proxy.cuts) and passed >= self.proxy.cuts[0]
                if due:
                    self.proxy.cuts.pop(0)
            if due:
                self.proxy.cut()
            self.sink.sendall(data)

        def shutdown(self, how):
            self.sink.shutdown(how)
