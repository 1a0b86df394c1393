#!/bin/sh
# check_header.sh HEADER BUILD_DIR: does src/HEADER compile on its own?
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck disable=SC2046,SC2086 # words on purpose
exec ${CC:-cc} -std=gnu17 -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -DFAULTS -Wall -Wextra -Werror \
    -fsyntax-only -I "$root/src" -isystem "$root/third_party/yyjson" \
    -isystem "$root/third_party/blake3" -isystem "$2/proto" -x c -include "$1" /dev/null
