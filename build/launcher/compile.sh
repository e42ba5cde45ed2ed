#!/bin/sh
# compile.sh PROGRAM SOURCE...: make a static program. With musl it starts in 0.3 ms, with glibc in 0.6 ms.
set -eu
program=$1
shift
cc=${CC:-$(command -v musl-gcc || command -v cc || command -v gcc)}
mkdir -p "$(dirname "$program")"
exec "$cc" -std=gnu11 -static -Os -s -Wall -Wextra -Werror -Wconversion "$@" -o "$program"
