#!/usr/bin/env python3
"""Print the files that match a pattern below a folder, for meson: list_files.py DIR PATTERN."""

import pathlib
import sys

root = pathlib.Path(sys.argv[1])
for path in sorted(root.glob(sys.argv[2])):
    print(path.relative_to(root))
