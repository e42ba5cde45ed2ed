#!/bin/sh
# compile.sh LIBRARY SOURCE...: make a library that Python loads with ctypes.
set -eu
library=$1
shift
mkdir -p "$(dirname "$library")"
exec "$(command -v cc || command -v gcc)" -std=gnu11 -shared -fPIC -O2 -s -Wall -Wextra -Werror -Wconversion "$@" -o "$library"
