"""Real object stores for the tests: on 127.0.0.1, ended with their `with` block.

They are installed by `tools/install-deps check`.  One that does not start raises, and says why.
"""

import base64
import contextlib
import hashlib
import hmac
import json
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
NPM = ROOT / "build/npm/node_modules"


def free_ports(n):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def answers(url):
    try:
        urllib.request.urlopen(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


class Server:
    """Processes and a folder that go with the `with` block."""

    def __init__(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="chrek-server-"))
        self.processes = []

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        self.processes = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, *argv):
        done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=60,
                              cwd=self.folder, check=False)
        if done.returncode:
            raise RuntimeError(f"{argv[0]}: {done.stdout}{done.stderr}")
        return done.stdout

    def spawn(self, *argv, env=None):
        log = (self.folder / f"{len(self.processes)}.log").open("w")
        self.processes.append(subprocess.Popen(
            [str(a) for a in argv], cwd=self.folder, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, env={**os.environ, **(env or {})}))
        log.close()

    def wait(self, url, seconds=60):
        end = time.monotonic() + seconds
        while not answers(url):
            ended = [p for p in self.processes if p.poll() is not None]
            if ended or time.monotonic() > end:
                logs = [p.read_text(errors="replace")[-2000:] for p in self.folder.glob("*.log")]
                raise RuntimeError(f"{type(self).__name__} did not start: {' '.join(logs)}")
            time.sleep(0.1)


class Ceph(Server):
    """Ceph's S3 gateway over one monitor and one object server in memory.  It checks signatures."""

    access, secret = "AKCHREK", "a/secret+of=chrek"

    def url(self, prefix, port=None):
        return f"s3://bucket/{prefix}?endpoint=http://127.0.0.1:{port or self.port}"

    def environment(self):
        return {"AWS_ACCESS_KEY_ID": self.access, "AWS_SECRET_ACCESS_KEY": self.secret}

    def wrong(self):
        return {**self.environment(), "AWS_SECRET_ACCESS_KEY": "another"}

    def client(self, *words):
        return self.run("s3cmd", "-c", "/dev/null", f"--access_key={self.access}",
                        f"--secret_key={self.secret}", f"--host=127.0.0.1:{self.port}",
                        f"--host-bucket=127.0.0.1:{self.port}/%(bucket)", "--no-ssl",
                        "--no-progress", *words)

    def fetch(self, name, to):
        self.client("get", "--force", f"s3://bucket/{name}", to)

    def names(self, prefix):
        listed = self.client("ls", "--recursive", f"s3://bucket/{prefix}")
        return [line.split("s3://bucket/")[1] for line in listed.splitlines() if "s3://" in line]

    def store(self, name, file):
        self.client("put", "--multipart-chunk-size-mb=5", file, f"s3://bucket/{name}")

    def start(self):
        mon, mon_old, gate = free_ports(3)
        self.port = gate
        here, fsid, osd = self.folder, str(uuid.uuid4()), str(uuid.uuid4())
        both = f"[v2:127.0.0.1:{mon},v1:127.0.0.1:{mon_old}]"
        # Debian 13's looks for them below its working directory, and S3 does not work without them.
        classes = next(pathlib.Path("/usr/lib").glob("*/rados-classes"))
        conf = here / "ceph.conf"
        conf.write_text(f"""[global]
fsid = {fsid}
mon host = {both}
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 2147483648
mon allow pool size one = true
mon max pg per osd = 1000
run dir = {here}
pid file = {here}/$name.pid
admin socket =
log file = {here}/$name.log
mon data = {here}/mon
osd data = {here}/osd
osd class dir = {classes}
keyring = {here}/keyring
public addr = 127.0.0.1
cluster addr = 127.0.0.1
[mon.a]
host = localhost
[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{gate}
rgw data = {here}/rgw
rgw enable gc threads = false
rgw enable lc threads = false
rgw run sync thread = false
rgw thread pool size = 32
""")
        keys = {"mon.": ["mon", "allow *"],
                "client.admin": ["mon", "allow *", "osd", "allow *"],
                "client.rgw": ["mon", "allow *", "osd", "allow *"],
                "osd.0": ["mon", "allow profile osd", "osd", "allow *"]}
        (here / "keyring").touch()
        for name, caps in keys.items():
            pairs = [x for i in range(0, len(caps), 2) for x in ("--cap", caps[i], caps[i + 1])]
            self.run("ceph-authtool", "keyring", "--gen-key", "-n", name, *pairs)
        self.run("monmaptool", "--create", "--addv", "a", both, "--fsid", fsid, "map")
        self.run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "map", "--keyring", "keyring",
                 "-c", conf)
        self.spawn("ceph-mon", "-i", "a", "-c", conf, "-f")
        self.run("ceph", "-c", conf, "--connect-timeout", "30", "osd", "new", osd)
        (here / "osd").mkdir()
        self.run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, "-c", conf)
        self.spawn("ceph-osd", "-i", "0", "-c", conf, "-f")
        self.spawn("radosgw", "-n", "client.rgw", "-c", conf, "-f")
        self.wait(f"http://127.0.0.1:{gate}/", 120)
        self.run("radosgw-admin", "-n", "client.rgw", "-c", conf, "user", "create", "--uid=chrek",
                 "--display-name=chrek", f"--access-key={self.access}",
                 f"--secret-key={self.secret}")
        self.client("mb", "s3://bucket")


class Registry(Server):
    """Debian's docker-registry, which wants a name and a password."""

    user, password = "chrek", "a/secret+of=chrek"

    def url(self, prefix, port=None):
        return f"oci://127.0.0.1:{port or self.port}/{prefix}?plain=true"

    def environment(self):
        return {"CHREK_OCI_USERNAME": self.user, "CHREK_OCI_PASSWORD": self.password}

    def wrong(self):
        return {**self.environment(), "CHREK_OCI_PASSWORD": "another"}

    def start(self):
        (self.port,) = free_ports(1)
        here = self.folder
        (here / "htpasswd").write_text(self.run("htpasswd", "-C", "4", "-Bbn", self.user, self.password))
        (here / "config.yml").write_text(f"""version: 0.1
log: {{level: error}}
storage:
  filesystem: {{rootdirectory: {here}/data}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:{self.port}", secret: chrek}}
auth:
  htpasswd: {{realm: chrek, path: {here}/htpasswd}}
""")
        self.spawn("docker-registry", "serve", here / "config.yml")
        self.wait(f"http://127.0.0.1:{self.port}/v2/")

    def place(self, name):
        """Repository and tag of an object, as oci_manifest.h has them."""
        repository, key = name.split("/", 1)
        return f"127.0.0.1:{self.port}/{repository}", key.replace("_", "__").replace("/", "_s")

    def skopeo(self, *words):
        return self.run("skopeo", *words)

    def fetch(self, name, to):
        repository, tag = self.place(name)
        copy = self.folder / f"copy-{tag}"
        self.skopeo("copy", "--src-tls-verify=false", "--src-creds",
                    f"{self.user}:{self.password}", f"docker://{repository}:{tag}", f"dir:{copy}")
        manifest = json.loads((copy / "manifest.json").read_text())
        with open(to, "wb") as out:
            for layer in manifest["layers"]:
                data = (copy / layer["digest"].removeprefix("sha256:")).read_bytes()
                assert hashlib.sha256(data).hexdigest() == layer["digest"][7:]
                out.write(data)

    def store(self, name, file):
        """As an artifact of two layers that skopeo pushes."""
        repository, tag = self.place(name)
        data, image = pathlib.Path(file).read_bytes(), self.folder / f"image-{tag}"
        blobs = image / "blobs/sha256"
        blobs.mkdir(parents=True)

        def blob(kind, content):
            digest = hashlib.sha256(content).hexdigest()
            (blobs / digest).write_bytes(content)
            return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}

        half = len(data) // 2
        kind = "application/vnd.oci.image.manifest.v1+json"
        manifest = blob(kind, json.dumps({
            "schemaVersion": 2, "mediaType": kind,
            "config": blob("application/vnd.oci.image.config.v1+json", b"{}"),
            "layers": [blob("application/vnd.oci.image.layer.v1.tar", data[:half]),
                       blob("application/vnd.oci.image.layer.v1.tar", data[half:])]}).encode())
        (image / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        (image / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
            {**manifest, "annotations": {"org.opencontainers.image.ref.name": "x"}}]}))
        self.skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", "--dest-creds",
                    f"{self.user}:{self.password}", f"oci:{image}:x", f"docker://{repository}:{tag}")

    def names(self, prefix):
        found = self.run("curl", "-s", "-u", f"{self.user}:{self.password}",
                         f"http://127.0.0.1:{self.port}/v2/{prefix.rstrip('/')}/tags/list")
        tags = json.loads(found).get("tags") or []
        return [prefix + tag.replace("_s", "/") for tag in tags]


class Azurite(Server):
    """Microsoft's emulator of Azure storage.  It checks signatures."""

    account = "devstoreaccount1"
    key = ("Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw"
           "==")

    def url(self, prefix, port=None):
        endpoint = f"http://127.0.0.1:{port or self.port}/{self.account}"
        return f"az://bucket/{prefix}?account={self.account}&endpoint={endpoint}"

    def environment(self):
        return {"AZURE_STORAGE_KEY": self.key}

    def wrong(self):
        return {"AZURE_STORAGE_KEY": "YW5vdGhlcg=="}

    def sas(self):
        """A shared access signature for everything, for an hour."""
        end = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        fields = {"sp": "rwdlac", "ss": "b", "srt": "sco", "se": end, "spr": "https,http",
                  "sv": "2019-12-12"}
        text = (f"{self.account}\n{fields['sp']}\n{fields['ss']}\n{fields['srt']}\n\n{end}\n\n"
                f"{fields['spr']}\n{fields['sv']}\n")
        digest = hmac.new(base64.b64decode(self.key), text.encode(), hashlib.sha256).digest()
        return urllib.parse.urlencode({**fields, "sig": base64.b64encode(digest).decode()})

    def client(self, *words):
        return self.run("env", "RCLONE_CONFIG_AZ_TYPE=azureblob",
                        f"RCLONE_CONFIG_AZ_SAS_URL={self.endpoint}?{self.sas()}", "rclone",
                        "--config", "", "--retries", "1", *words)

    def fetch(self, name, to):
        self.client("copyto", f"az:bucket/{name}", to)

    def names(self, prefix):
        listed = self.client("lsf", "--recursive", "--files-only", "az:bucket").splitlines()
        return [name for name in listed if name.startswith(prefix)]

    def store(self, name, file):
        self.client("copyto", "--azureblob-chunk-size", "5M", file, f"az:bucket/{name}")

    def start(self):
        (self.port,) = free_ports(1)
        self.endpoint = f"http://127.0.0.1:{self.port}/{self.account}"
        self.spawn("node", NPM / "azurite/dist/src/blob/main.js", "--silent",
                   "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck",
                   "--blobHost", "127.0.0.1", "--blobPort", self.port)
        self.wait(self.endpoint)
        self.client("mkdir", "az:bucket")
