#!/bin/sh
# build.sh [--cached]: print the path of the second kernel's program, and build it before where it is not there:
# ten minutes of CPU time. --cached only prints.
#
# It is Linux in user mode, of Debian's linux-source-6.1 with the options of the file beside this one. It stays
# in ~/.cache/pycni, in a folder named after the package's version and a hash of the options.
set -eu

cd "$(dirname "$0")"
package=linux-source-6.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/pycni
hash=$(sha256sum <options | cut -c1-12)

# locate: set `version` to the version that apt has, and `kernel` to the program made of it.
locate() {
    version=$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^ *Candidate: //p') || version=""
    [ "$version" != "(none)" ] || version=""
    kernel=$cache/linux-$version-$hash/linux
    # Without lists of packages the newest program will do.
    [ -n "$version" ] || kernel=$(find "$cache" -path "*/linux-*-$hash/linux" 2>/dev/null | sort -V | tail -n 1)
}

# finish_if_there: print the program and end, where it is there.
finish_if_there() {
    locate
    [ -z "$kernel" ] || [ ! -x "$kernel" ] || { echo "$kernel"; exit 0; }
}

finish_if_there
[ "${1:-}" != --cached ] || exit 1
# Only now: beside busy processes a search of that priority takes a minute.
renice -n 19 -p $$ >/dev/null
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9
# Another process may have built it meanwhile, and apt may have its first lists of packages now.
finish_if_there
[ "$(uname -m)" = x86_64 ] || { echo "Linux in user mode is for x86_64, not $(uname -m)" >&2; exit 1; }
free_kb=$(df -Pk "$cache" | awk 'NR == 2 { print $4 }')
[ "$free_kb" -gt 2500000 ] || { echo "no room for the second kernel: 2.5 GB are needed in $cache" >&2; exit 1; }
../../build/system-packages.sh kernel >&2
finish_if_there
if [ -z "$version" ]; then
    # The lists of packages may be missing, as in a fresh container.
    apt-get update -q >/dev/null 2>&1 || true
    finish_if_there
fi
if [ -z "$version" ]; then
    echo "apt has no package $package" >&2
    exit 1
fi

echo "building $package $version: ten minutes of CPU time, once" >&2
rm -rf "$cache"/work.*
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
options=$PWD/options
cd "$work"
# Without the sandbox, which is for a user who cannot write here.
apt-get -q -o APT::Sandbox::User=root download "$package=$version" >&2
dpkg-deb --fsys-tarfile "$package"_*.deb | tar -xO "./usr/src/$package.tar.xz" | tar -xJ --strip-components=1
make -s ARCH=um defconfig >&2
cat "$options" >>.config
make -s ARCH=um olddefconfig >config.log 2>&1 || { cat config.log >&2; exit 1; }
# An option whose dependency is missing vanishes without a word.
if lost=$(grep CONFIG_ "$options" | grep -vxFf .config); then
    echo "these options are not in the kernel: $lost" >&2
    exit 1
fi
make -s -j"$(nproc)" ARCH=um linux >make.log 2>&1 || { tail -n 50 make.log >&2; exit 1; }
strip linux
mkdir stage
mv linux stage/linux
cp .config stage/config
rm -rf "${kernel%/linux}"
mv stage "${kernel%/linux}"
echo "$kernel"
