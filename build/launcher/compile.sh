#!/bin/sh
# compile.sh PROGRAM: make the launcher, static. With musl it starts in 0.3 ms, with glibc in 0.6 ms.
set -eu
from=$(dirname "$0")
cc=${CC:-$(command -v musl-gcc || command -v cc || command -v gcc)}
mkdir -p "$(dirname "$1")"
exec "$cc" -std=gnu11 -static -Os -s -Wall -Wextra -Werror -Wconversion "$from"/*.c -o "$1"
