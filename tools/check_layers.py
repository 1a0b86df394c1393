#!/usr/bin/env python3
"""Fail when an #include crosses a layer, a private header leaves home, or a banned call appears."""

import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
INCLUDE = re.compile(r'^\s*#\s*include\s+(["<])([^">]+)[">]')
BANNED = {  # name -> what to use instead
    "strcpy": "snprintf or buf_add", "strcat": "buf_add", "sprintf": "snprintf",
    "strncpy": "memcpy with a length", "strtok": "str_split", "atoi": "num_parse",
    "strtol": "num_parse", "atol": "num_parse", "atoll": "num_parse", "vsprintf": "vsnprintf",
    "gets": "fgets", "mktemp": "mkdtemp", "tmpnam": "mkdtemp", "gmtime": "gmtime_r", "localtime": "localtime_r",
    "fsync": "sys_fsync", "rename": "sys_rename_*", "linkat": "sys_link_fd",
    "openat": "sys_openat", "system": "proc_spawn", "popen": "proc_spawn", "dup": "fd_dup",
}
CALL = re.compile(r"(?<![\w.>])(" + "|".join(BANNED) + r")\s*\(")
STRIP = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\])*"', re.S)


def load_layers(path):
    allowed, owners = {}, {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, _, rest = line.partition(":")
        words = rest.split()
        for word in words:
            if word.startswith("<"):
                owners.setdefault(word.strip("<>"), set()).add(name)
            elif word.split("/")[0] not in allowed:
                sys.exit(f"{path}:{number}: {name} names {word}, which is not above it")
        allowed[name] = {w for w in words if not w.startswith("<")} | {name}
    return allowed, owners


def check(path, lib, allowed, owners):
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        kind, header = match.groups()
        if kind == "<":
            if header in owners and lib not in owners[header]:
                yield number, f"{lib} may not include <{header}>; only {sorted(owners[header])} may"
            continue
        other = header.split("/")[0]
        if other not in allowed[lib] and header not in allowed[lib]:
            yield number, f"{lib} may not include {other} ({header})"
        elif header.endswith("_priv.h") and other != lib:
            yield number, f"{header} is private to {other}"
    if lib != "base":
        bare = STRIP.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)
        for match in CALL.finditer(bare):
            number = bare.count("\n", 0, match.start()) + 1
            yield number, f"{match.group(1)}(): use {BANNED[match.group(1)]}"


def main():
    allowed, owners = load_layers(ROOT / "tools/layers.txt")
    bad = 0
    for path in sorted((ROOT / "src").rglob("*.[ch]")):
        lib = path.relative_to(ROOT / "src").parts[0]
        if lib not in allowed:
            print(f"{path}: no line for '{lib}' in tools/layers.txt")
            bad += 1
            continue
        for number, what in check(path, lib, allowed, owners):
            print(f"{path}:{number}: {what}")
            bad += 1
    sys.exit(bad != 0)


main()
