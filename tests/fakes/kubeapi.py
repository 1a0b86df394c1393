#!/usr/bin/env python3
"""A double of a Kubernetes API server: as much of it as chrek's client and agent use.

In a test:     with KubeApi() as api: api.create("pods", pod); ... api.url, api.kubeconfig(path)
As a program:  kubeapi.py DIR    writes DIR/kubeconfig, serves with TLS until its input ends

Pods, events and namespaces are kept as they come; lists have pages, selectors and resource versions,
watches have bookmarks and forget what is old.  tests/kube/run holds it to what a real server does.
"""

import base64
import copy
import datetime
import http.server
import json
import pathlib
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid

KINDS = {"pods": "Pod", "events": "Event", "namespaces": "Namespace"}
PATH = re.compile(r"^/api/v1(?:/namespaces/(?P<ns>[^/]+))?/(?P<plural>pods|events|namespaces)"
                  r"(?:/(?P<name>[^/]+))?(?:/(?P<sub>status))?$")
REASONS = {400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound",
           405: "MethodNotAllowed", 409: "Conflict", 410: "Expired", 415: "UnsupportedMediaType",
           422: "Invalid", 429: "TooManyRequests", 503: "ServiceUnavailable"}


class Refused(Exception):
    def __init__(self, code, message, reason=None, headers=()):
        super().__init__(message)
        self.code, self.headers = code, dict(headers)
        self.status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                       "message": message, "reason": reason or REASONS.get(code, "Unknown"), "code": code}


def now():
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def merge(target, patch):
    """RFC 7396."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def json_patch(target, operations):
    """RFC 6902: test, add, replace and remove, of members of objects."""
    result = copy.deepcopy(target)
    for step in operations:
        parts = [p.replace("~1", "/").replace("~0", "~") for p in step["path"].split("/")[1:]]
        at = result
        for part in parts[:-1]:
            at = at.get(part) if isinstance(at, dict) else None
        if not isinstance(at, dict):
            raise Refused(422, f"the path {step['path']} does not exist")
        if step["op"] == "test" and at.get(parts[-1]) != step["value"]:
            raise Refused(422, f"testing path {step['path']} value failed")
        if step["op"] in ("remove", "replace") and parts[-1] not in at:
            raise Refused(422, f"the path {step['path']} does not exist")
        if step["op"] in ("add", "replace"):
            at[parts[-1]] = step["value"]
        elif step["op"] == "remove":
            del at[parts[-1]]
    return result


def selects_labels(selector, labels):
    for term in filter(None, (selector or "").split(",")):
        key, _, value = term.partition("!=" if "!=" in term else "=")
        if "!=" in term and labels.get(key) == value:
            return False
        if "!=" not in term and "=" in term and labels.get(key) != value.lstrip("="):
            return False
        if "=" not in term and term not in labels:
            return False
    return True


def selects_fields(selector, obj):
    for term in filter(None, (selector or "").split(",")):
        key, _, value = term.partition("=")
        at = obj
        for part in key.split("."):
            at = (at or {}).get(part)
        if (at or "") != value.lstrip("="):
            return False
    return True


class Query:
    def __init__(self, text):
        self.values = dict(urllib.parse.parse_qsl(text, keep_blank_values=True))

    def __getattr__(self, name):
        return self.values.get(name, "")

    def number(self, name, default):
        return int(self.values.get(name) or default)

    def selects(self, obj):
        return selects_labels(self.labelSelector, obj["metadata"].get("labels") or {}) and \
            selects_fields(self.fieldSelector, obj)


class Store:
    """Objects, and what has happened to them since `forgotten`."""

    def __init__(self):
        self.lock = threading.Condition()
        self.objects = {}  # (plural, namespace, name) -> object
        self.version = 1000
        self.history = []  # (version, plural, before, after)
        self.forgotten = 1000

    def put(self, plural, before, after):
        self.version += 1
        if after:
            after["metadata"]["resourceVersion"] = str(self.version)
        else:
            before = copy.deepcopy(before)
            before["metadata"]["resourceVersion"] = str(self.version)
        self.history.append((self.version, plural, before, after))
        meta = (after or before)["metadata"]
        key = (plural, meta.get("namespace", ""), meta["name"])
        if after:
            self.objects[key] = after
        else:
            self.objects.pop(key)
        self.lock.notify_all()
        return after or before

    def get(self, plural, namespace, name):
        try:
            return self.objects[plural, namespace, name]
        except KeyError:
            raise Refused(404, f'{plural} "{name}" not found') from None

    def select(self, plural, namespace):
        return [obj for key, obj in sorted(self.objects.items())
                if key[0] == plural and namespace in ("", key[1])]

    def forget(self):
        """As after a compaction: nobody can go on from a version before this one."""
        with self.lock:
            self.history, self.forgotten = [], self.version


class KubeApi:
    def __init__(self, tls_dir=None, token="secret-token"):
        self.store = Store()
        self.token = token
        self.allowed = None      # {(verb, plural[/sub])}: None = everything
        self.refuse = []         # Refused, one for each of the next requests
        self.requests = []       # (verb, plural[/sub], path)
        self.bookmark_s = 0.5
        self.watches = []        # sockets
        self.down = False
        self.tls_dir = tls_dir
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler(self))
        self.server.daemon_threads = True
        if tls_dir:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls_dir / "server.crt", tls_dir / "server.key")
            context.load_verify_locations(tls_dir / "ca.crt")
            context.verify_mode = ssl.CERT_OPTIONAL
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.url = f"{'https' if tls_dir else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        self.create("namespaces", {"metadata": {"name": "default"}})
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.down = True
        self.cut_watches()
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, path):
        user = f"    token: {self.token}\n"
        cluster = f"    server: {self.url}\n"
        if self.tls_dir:
            cluster += f"    certificate-authority: {self.tls_dir}/ca.crt\n"
            key = base64.b64encode((self.tls_dir / "client.key").read_bytes()).decode()
            user = (f"    client-certificate: {self.tls_dir}/client.crt\n"
                    f"    client-key-data: {key}\n")
        path.write_text("apiVersion: v1\nkind: Config\ncurrent-context: test\n"
                        "contexts:\n- name: test\n  context: {cluster: it, user: me}\n"
                        f"clusters:\n- name: it\n  cluster:\n{cluster}"
                        f"users:\n- name: me\n  user:\n{user}")
        return path

    # -- for tests: as if by somebody else --

    def create(self, plural, obj):
        obj = copy.deepcopy(obj)
        meta = obj.setdefault("metadata", {})
        if plural != "namespaces":
            meta.setdefault("namespace", "default")
        if "name" not in meta and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", now())
        obj.setdefault("apiVersion", "v1")
        obj.setdefault("kind", KINDS[plural])
        with self.store.lock:
            key = (plural, meta.get("namespace", ""), meta["name"])
            if key in self.store.objects:
                raise Refused(409, f'{plural} "{meta["name"]}" already exists', "AlreadyExists")
            return copy.deepcopy(self.store.put(plural, None, obj))

    def change(self, plural, namespace, name, patch):
        with self.store.lock:
            before = self.store.get(plural, namespace, name)
            return copy.deepcopy(self.store.put(plural, before, merge(before, patch)))

    def delete(self, plural, namespace, name):
        with self.store.lock:
            return self.store.put(plural, self.store.get(plural, namespace, name), None)

    def get(self, plural, namespace, name):
        with self.store.lock:
            return copy.deepcopy(self.store.get(plural, namespace, name))

    def items(self, plural, namespace=""):
        with self.store.lock:
            return copy.deepcopy(self.store.select(plural, namespace))

    def cut_watches(self):
        for sock in self.watches[:]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def handler(api):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args):
            pass

        def handle(self):
            try:
                super().handle()
            except (ConnectionError, TimeoutError, ssl.SSLError):
                pass

        def do_GET(self):
            self.answer()

        do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

        def answer(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            url = urllib.parse.urlsplit(self.path)
            try:
                self.check_user()
                match = PATH.match(url.path)
                if not match:
                    raise Refused(404, "the server could not find the requested resource")
                self.route(Query(url.query), body, **match.groupdict())
            except Refused as refused:
                self.send(refused.code, refused.status, refused.headers)

        def check_user(self):
            certificate = isinstance(self.connection, ssl.SSLSocket) and self.connection.getpeercert()
            if not certificate and self.headers.get("Authorization") != f"Bearer {api.token}":
                raise Refused(401, "Unauthorized")

        def route(self, query, body, ns, plural, name, sub):
            verb = {"POST": "create", "PUT": "update", "PATCH": "patch",
                    "DELETE": "delete"}.get(self.command)
            verb = verb or ("get" if name else "watch" if query.watch in ("true", "1") else "list")
            resource = plural + (f"/{sub}" if sub else "")
            api.requests.append((verb, resource, self.path))
            if api.down:
                raise Refused(503, "the server is going away")
            if api.allowed is not None and (verb, resource) not in api.allowed:
                raise Refused(403, f'{resource} is forbidden: User "me" cannot {verb} resource "{plural}"')
            if api.refuse:
                raise api.refuse.pop(0)
            if plural == "namespaces":
                ns, name = "", name or ns
            getattr(self, "on_" + verb)(query, body, ns or "", plural, name, sub)

        def send(self, code, obj, headers=None):
            text = json.dumps(obj).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(text)

        def parse(self, body):
            try:
                return json.loads(body)
            except ValueError:
                raise Refused(400, "the body is no JSON") from None

        # -- verbs --

        def on_get(self, _query, _body, ns, plural, name, _sub):
            self.send(200, api.get(plural, ns, name))

        def on_create(self, _query, body, ns, plural, name, _sub):
            if name and plural != "namespaces":
                raise Refused(405, "the server does not allow this method on the requested resource")
            obj = self.parse(body)
            meta = obj.setdefault("metadata", {})
            if meta.get("namespace", ns) != ns:
                raise Refused(400, "the namespace of the object does not match the namespace of the request")
            if ns:
                api.get("namespaces", "", ns)
                meta["namespace"] = ns
            meta.pop("resourceVersion", None)
            meta.pop("uid", None)
            if not meta.get("name") and not meta.get("generateName"):
                raise Refused(422, "metadata.name: Required value: name or generateName is required")
            if plural == "events" and obj.get("involvedObject", {}).get("namespace") != ns:
                raise Refused(422, "involvedObject.namespace: Invalid value: does not match event.namespace")
            if plural == "pods":  # whoever creates a pod does not say how it is
                obj["status"] = {"phase": "Pending"}
            self.send(201, api.create(plural, obj))

        def on_update(self, _query, body, ns, plural, name, sub):
            with api.store.lock:
                self.send(200, self.replace(ns, plural, name, sub, self.parse(body)))

        def replace(self, ns, plural, name, sub, obj):
            before = api.store.get(plural, ns, name)
            meta, old = obj.get("metadata", {}), before["metadata"]
            if meta.get("uid", old["uid"]) != old["uid"]:
                raise Refused(409, f'Operation cannot be fulfilled on {plural} "{name}": Precondition '
                                   f'failed: UID in precondition: {meta["uid"]}, UID in object meta: {old["uid"]}')
            if meta.get("resourceVersion", old["resourceVersion"]) != old["resourceVersion"]:
                raise Refused(409, f'Operation cannot be fulfilled on {plural} "{name}": the object has been '
                                   "modified; please apply your changes to the latest version and try again")
            after = copy.deepcopy(obj)
            if sub == "status":  # of it only the status counts; elsewhere everything but it
                after = dict(copy.deepcopy(before), status=after.get("status", {}))
            elif "status" in before:
                after["status"] = copy.deepcopy(before["status"])
            after["metadata"] = dict(after.get("metadata", {}), uid=old["uid"],
                                     creationTimestamp=old["creationTimestamp"])
            if after == before:
                return before
            return api.store.put(plural, before, after)

        def on_patch(self, query, body, ns, plural, name, sub):
            kind, patch = self.headers.get("Content-Type"), self.parse(body)
            with api.store.lock:
                if kind == "application/apply-patch+yaml":
                    if not query.fieldManager:
                        raise Refused(422, "PatchOptions.meta.k8s.io: fieldManager: Required value: is required "
                                           "for apply patch")
                    after = merge(api.store.get(plural, ns, name), patch)
                elif kind == "application/merge-patch+json":
                    after = merge(api.store.get(plural, ns, name), patch)
                elif kind == "application/json-patch+json":
                    after = json_patch(api.store.get(plural, ns, name), patch)
                else:
                    raise Refused(415, "the body of the request was in an unknown format")
                self.send(200, self.replace(ns, plural, name, sub, after))

        def on_delete(self, _query, _body, ns, plural, name, _sub):
            self.send(200, api.delete(plural, ns, name))

        # -- many --

        def on_list(self, query, _body, ns, plural, _name, _sub):
            limit = query.number("limit", 0)
            with api.store.lock:
                version, after = str(api.store.version), ""
                if getattr(query, "continue"):
                    version, after = json.loads(base64.b64decode(getattr(query, "continue")))
                    if int(version) < api.store.forgotten:
                        raise Refused(410, "The provided continue parameter is too old to display a consistent "
                                           "list result")
                items = [obj for obj in api.store.select(plural, ns) if query.selects(obj)]
                items = [obj for obj in items if self.place(obj) > after]
                meta = {"resourceVersion": version}
                if limit and len(items) > limit:
                    items = items[:limit]
                    token = json.dumps([version, self.place(items[-1])]).encode()
                    meta["continue"] = base64.b64encode(token).decode()
                self.send(200, {"kind": KINDS[plural] + "List", "apiVersion": "v1", "metadata": meta,
                                "items": items})

        @staticmethod
        def place(obj):
            return obj["metadata"].get("namespace", "") + "/" + obj["metadata"]["name"]

        def on_watch(self, query, _body, ns, plural, _name, _sub):
            end = time.monotonic() + query.number("timeoutSeconds", 1800)
            version = query.number("resourceVersion", 0)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            api.watches.append(self.connection)
            try:
                self.follow(query, ns, plural, version, end)
                self.wfile.write(b"0\r\n\r\n")
            finally:
                api.watches.remove(self.connection)

        def follow(self, query, ns, plural, version, end):
            with api.store.lock:
                if version < api.store.forgotten:
                    refused = Refused(410, f"too old resource version: {version} ({api.store.forgotten})")
                    self.event("ERROR", refused.status)
                    return
            told = time.monotonic()
            while time.monotonic() < end and not api.down:
                with api.store.lock:
                    if api.store.version == version:
                        api.store.lock.wait(0.05)
                    news = [h for h in api.store.history if h[0] > version]
                    version = api.store.version
                for _, of, before, after in news:
                    if of == plural and ns in ("", (after or before)["metadata"].get("namespace", "")):
                        self.tell(query, before, after)
                if time.monotonic() - told > api.bookmark_s and query.allowWatchBookmarks == "true":
                    told = time.monotonic()
                    self.event("BOOKMARK", {"kind": KINDS[plural], "apiVersion": "v1",
                                            "metadata": {"resourceVersion": str(version)}})

        def tell(self, query, before, after):
            was, is_now = before and query.selects(before), after and query.selects(after)
            if was and is_now:
                self.event("MODIFIED", after)
            elif is_now:
                self.event("ADDED", after)
            elif was:
                self.event("DELETED", after or before)

        def event(self, kind, obj):
            text = json.dumps({"type": kind, "object": obj}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(text), text))
            self.wfile.flush()

    return Handler


def make_certificates(folder):
    """A CA, a server's certificate and a client's, by the openssl program."""
    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, cwd=folder)

    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=test-ca", "-keyout", "ca.key", "-out", "ca.crt")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / f"{name}.ext").write_text(extension)
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-subj", f"/O=system:masters/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.csr")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
                "-days", "2", "-extfile", f"{name}.ext", "-out", f"{name}.crt")


def main():
    folder = pathlib.Path(sys.argv[1])
    make_certificates(folder)
    with KubeApi(folder) as api:
        api.kubeconfig(folder / "kubeconfig")
        print(api.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
