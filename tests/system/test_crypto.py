"""Encrypted and signed checkpoints: real programs, keys by every way, and another implementation of the format."""

import hashlib
import hmac
import json
import os
import subprocess

from lib import ROOT, wait_for

GOLDEN = ROOT / "tests/golden/encrypted"
SECRET = "correct horse battery staple"
SCRIPT = """
import os, sys, time
memory = (sys.argv[1] * 1000).encode()
print('ready', flush=True)
while not os.path.exists(sys.argv[2]):
    time.sleep(0.02)
print('same', memory == (sys.argv[1] * 1000).encode(), flush=True)
time.sleep(1000)
"""


def chrek(t, *argv, env=None):
    return t.chrek(*argv, check=False, env=env or t.env)


def make_key(t, name, *options):
    p = chrek(t, "key", "generate", *options, t.dir / name)
    assert p.returncode == 0, p.stderr
    return t.dir / name


def save(t, name, *options, env=None):
    """A checkpoint of a program that keeps a secret in its memory, its arguments and its environment."""
    go = t.dir / f"go-{name}"
    p = t.run_until_saved(name, "log:ready", "python3", "-c", SCRIPT, SECRET, str(go),
                          env=dict(env or t.env, APP_PASSWORD=SECRET), options=["--stop", *map(str, options)])
    assert p.wait(60) == 0, p.text()
    return go


def lives(t, name, go, *options, env=None):
    """Restore it and see that its memory is what it was."""
    if go.exists():
        go.unlink()
    p = t.start("restore", name, *map(str, options), env=env or t.env)
    go.touch()
    wait_for("the program's answer", lambda: "same" in p.text() or p.poll() is not None)
    assert "same True" in p.text(), p.text()
    t.stop(p)


def refused(t, name, words, *options, env=None):
    p = chrek(t, "restore", name, *options, env=env)
    assert p.returncode == 125 and words in p.stderr, (p.returncode, p.stderr)


def grep(directory, *secrets):
    for path in directory.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in secrets:
                assert secret.encode() not in data, f"{path} shows '{secret}'"


def test_an_encrypted_program_comes_back_with_its_key_only(t):
    """Wrong key, no key: told, and started cold; right key: restored. Nothing readable in the store."""
    key, wrong = make_key(t, "key"), make_key(t, "wrong")
    go = save(t, "enc", "--key-file", key)
    grep(t.store, SECRET, "APP_PASSWORD", "python3", str(t.dir / "go"))
    lives(t, "enc", go, "--key-file", key)
    refused(t, "enc", "no key")
    refused(t, "enc", "wrong key", "--key-file", wrong)
    p = t.start("run", "--name", "enc", "--key-file", str(wrong), "--ready", "never", "--", "echo", "cold start")
    assert p.wait(60) == 0
    assert "cold start" in p.text() and "wrong key" in p.text() and "Falling back" in p.text(), p.text()
    listed = json.loads(chrek(t, "ls", "--json").stdout)[0]
    assert listed["encrypted"] and listed["command"] == []
    assert SECRET in json.loads(chrek(t, "ls", "--json", "--key-file", key).stdout)[0]["command"]
    with subprocess.Popen(["sleep", "1000"], env=t.env, stdin=subprocess.DEVNULL, start_new_session=True) as sleeper:
        forgot = chrek(t, "checkpoint", "--replace", "--id", "enc", sleeper.pid)
        sleeper.kill()
    assert forgot.returncode == 8 and "--unencrypted" in forgot.stderr, forgot.stderr
    assert chrek(t, "verify", "enc", "--key-file", key).returncode == 0
    assert chrek(t, "verify", "enc").returncode == 8


def test_keys_come_from_environment_configuration_and_secrets(t):
    secret = t.dir / "secret"
    (secret / "..2026").mkdir(parents=True)
    make_key(t, "secret/..2026/key")
    (secret / "..data").symlink_to("..2026")
    (secret / "key").symlink_to("..data/key")
    env = dict(t.env, CHREK_KEY_FILE=str(secret))
    go = save(t, "enc", env=env)
    lives(t, "enc", go, env=env)
    refused(t, "enc", "no key")
    (t.dir / "c.json").write_text(json.dumps({"key_file": str(secret)}))
    lives(t, "enc", go)
    os.chmod(secret / "..2026/key", 0o644)
    refused(t, "enc", "may be read or written by others")


def test_rotation_and_a_key_service(t):
    """The data key is wrapped anew, by a file and then by a service; packs and files stay as they are."""
    old, new = make_key(t, "old"), make_key(t, "new")
    go = save(t, "enc", "--key-file", old)
    before = {p: p.read_bytes() for p in t.store.rglob("*") if p.is_file() and "keys" not in p.parts}
    p = chrek(t, "key", "rotate", "--key-file", old, "--new-key-file", new)
    assert p.returncode == 0, p.stderr
    refused(t, "enc", "wrong key", "--key-file", old)
    lives(t, "enc", go, "--key-file", new)
    service = t.dir / "service"
    service.write_text("#!/bin/sh\nexec tr '\\000-\\377' '\\200-\\377\\000-\\177'\n")
    service.chmod(0o755)
    p = chrek(t, "key", "rotate", "--key-file", new, "--new-key-command", service)
    assert p.returncode == 0, p.stderr
    assert "key service" in chrek(t, "key", "list").stdout
    lives(t, "enc", go, "--key-command", service)
    service.write_text("#!/bin/sh\nexec sleep 1000\n")
    refused(t, "enc", "in time", "--key-command", service, "--key-timeout", "500ms")
    service.write_text("#!/bin/sh\nexec head -c 32 /dev/zero\n")
    refused(t, "enc", "not the key", "--key-command", service)
    assert before == {p: p.read_bytes() for p in t.store.rglob("*") if p.is_file() and "keys" not in p.parts}


def test_only_signed_checkpoints_where_there_is_a_trust_key(t):
    """Packed and plain; unsigned, by a stranger, changed: each with its own words."""
    signer, stranger = make_key(t, "signer", "--sign"), make_key(t, "stranger", "--sign")
    trust = ["--trust-key", t.dir / "signer.pub"]
    for form in ("packed", "plain"):
        go = save(t, f"mine-{form}", "--sign-key", signer, "--format", form)
        lives(t, f"mine-{form}", go, *trust)
    save(t, "theirs", "--sign-key", stranger)
    save(t, "nobodys")
    refused(t, "theirs", "nobody here trusts", *trust)
    refused(t, "nobodys", "unsigned", *trust)
    refused(t, "mine-packed", "no trust key", "--require-signature")
    manifest = t.store / "mine-packed/manifest"
    manifest.write_bytes(manifest.read_bytes().replace(b"files", b"filed"))
    refused(t, "mine-packed", "signature is not of these bytes", *trust)


def test_plain_and_encrypted_exclude_each_other(t):
    p = chrek(t, "run", "--name", "x", "--key-file", make_key(t, "key"), "--format", "plain", "--ready", "after:0.1",
              "--", "sleep", "1")
    assert "any CRIU can read" in p.stderr, p.stderr


# ---- docs/formats/encryption.md, by other means: Python's hmac, and the AES of the openssl command ----

def mac(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def hkdf(key, salt, purpose, n=32):
    return mac(mac(salt or bytes(32), key), purpose + b"\1")[:n]


def aes(key, blocks):
    return subprocess.run(["openssl", "enc", "-aes-256-ecb", "-nopad", "-K", key.hex()], input=blocks,
                          capture_output=True, check=True).stdout


def ghash(h, data):
    y = 0
    for i in range(0, len(data), 16):
        x, v, z = y ^ int.from_bytes(data[i:i + 16], "big"), h, 0
        for bit in range(127, -1, -1):
            z ^= v if x >> bit & 1 else 0
            v = (v >> 1) ^ ((0xe1 << 120) if v & 1 else 0)
        y = z
    return y


def gcm_open(key, number, bound, data, tag):
    nonce = bytes(4) + number.to_bytes(8, "little")
    stream = aes(key, b"".join(nonce + (i + 1).to_bytes(4, "big") for i in range((len(data) + 15) // 16 + 1)))
    lengths = (len(bound) * 8).to_bytes(8, "big") + (len(data) * 8).to_bytes(8, "big")
    padded = b"".join(part + bytes(-len(part) % 16) for part in (bound, data)) + lengths
    y = ghash(int.from_bytes(aes(key, bytes(16)), "big"), padded)
    assert bytes(a ^ b for a, b in zip(y.to_bytes(16, "big"), stream)) == tag
    return bytes(a ^ b for a, b in zip(data, stream[16:]))


def little(data):
    return int.from_bytes(data, "little")


def test_the_format_is_as_it_is_written_down(t):
    """The golden checkpoint, read without any code of ours; and by chrek."""
    store = GOLDEN / "store"
    manifest = json.loads((store / "web/manifest").read_text())
    ident = bytes.fromhex(manifest["key"])
    wrapped = next((store / "keys" / manifest["key"]).iterdir()).read_bytes()
    key = gcm_open(hkdf((GOLDEN / "key").read_bytes(), ident, b"chrek key wrapping 1"), little(wrapped[64:72]),
                   wrapped[:64], wrapped[72:104], wrapped[104:])
    assert hkdf(key, b"", b"chrek data key id 1", 16) == ident

    def sealed(number, name):
        data = (store / f"web/sealed-{number}").read_bytes()
        size = little(data[56:64])
        bound = data[:64] + manifest["id"].encode() + b"\0" + name.encode() + b"\0"
        return gcm_open(hkdf(key, data[32:56], b"chrek file 1"), 0, bound, data[64:64 + size], data[64 + size:])

    names = [f["name"] for f in json.loads(sealed(0, "index"))["files"]]
    files = {name: sealed(i + 1, name) for i, name in enumerate(names)}
    assert files["core-1.img"] == b"content" and b"hunter2" in files["metadata.json"]
    pack = manifest["packs"][0]
    data = (store / "packs" / pack[:2] / pack).read_bytes()
    footer = data[-64:]
    offset = len(data) - 64 - little(footer[:8]) * 48 - little(footer[8:16]) * 24
    pack_key = hkdf(key, pack.encode(), b"chrek pack 1")
    index = gcm_open(pack_key, offset, b"index 1\0" + footer[:16], data[offset:-64], footer[16:32])
    stored = little(index[40:44])
    assert little(index[32:40]) == 0 and stored == offset
    gcm_open(pack_key, 0, b"chunk 1\0" + index[40:48], data[:stored], index[:16])
    copy = t.dir / "key"
    copy.write_bytes((GOLDEN / "key").read_bytes())
    copy.chmod(0o600)
    p = chrek(t, "verify", "web", "--store", store, "--key-file", copy, "--trust-key", GOLDEN / "signer.pub")
    assert p.returncode == 0, p.stderr
