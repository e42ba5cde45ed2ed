#!/bin/sh
# system-packages.sh build|test|kernel...: install the Debian packages needed for that and missing. Without the
# right to do so, say which they are: tests that need them are skipped and name them too.
set -eu

PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
missing=""
was_missing=""
export DEBIAN_FRONTEND=noninteractive

# need PACKAGE FILE...: the package is missing unless each file is there, on PATH if it is only a name.
need() {
    package=$1
    shift
    for file in "$@"; do
        command -v "$file" >/dev/null 2>&1 || [ -e "$file" ] || { missing="$missing $package"; return; }
    done
}

python=${PYTHON:-python3}

# settle: install what is missing so far, or say what it is.
settle() {
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing:$missing"
        { apt-get update -q && apt-get install -qy --no-install-recommends $missing; } >/dev/null ||
            echo "could not install all of:$missing" >&2
    else
        echo "missing:$missing"
        echo "install them as root; what needs them is skipped or fails"
    fi
    was_missing=$missing missing=""
}

# fetch PACKAGE FILE: unpack a package into dist/debian. Installing it would change what podman does on this machine.
fetch() {
    unpacked="$(dirname "$0")/../dist/debian"
    [ ! -e "/$2" ] && [ ! -e "$unpacked/$2" ] && command -v apt-get >/dev/null || return 0
    folder=$(mktemp -d)
    chmod 755 "$folder"
    {
        (cd "$folder" && { apt-get download -q "$1" || { apt-get update -q && apt-get download -q "$1"; }; }) &&
            mkdir -p "$unpacked" && dpkg -x "$folder"/*.deb "$unpacked"
    } >/dev/null 2>&1 || echo "could not fetch $1: what needs it is skipped"
    rm -rf "$folder"
}

# PyInstaller needs the interpreter as a shared library, which Debian's python3 does not bring.
has_python_library() {
    "$python" -c 'if True:
        import ctypes, os, sysconfig
        name = sysconfig.get_config_var("INSTSONAME")
        os.path.exists(os.path.join(sysconfig.get_config_var("LIBDIR"), name)) or ctypes.CDLL(name)
    ' 2>/dev/null
}

# python_library: its package, nothing when there is no interpreter.
python_library() {
    "$python" -c 'import sys; print("libpython%d.%d" % sys.version_info[:2])' 2>/dev/null || true
}

for purpose in "$@"; do
    case $purpose in
    build)
        need binutils objdump strip
        need gcc cc
        need libc6-dev /usr/include/stdio.h
        need musl-tools musl-gcc
        [ "$python" != python3 ] || need python3 python3
        # Only an interpreter that is there can say which library is its own.
        command -v "$python" >/dev/null || settle
        "$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
        has_python_library || missing="$missing $(python_library)"
        ;;
    test)
        need iproute2 ip bridge
        need util-linux unshare nsenter
        need iptables iptables iptables-nft iptables-legacy
        need nftables nft
        need conntrack conntrack
        need dnsmasq-base dnsmasq
        need iputils-ping ping
        need containernetworking-plugins /usr/lib/cni/bridge
        need containerd containerd ctr
        need runc runc
        need podman podman
        need crun crun
        need buildah buildah
        need busybox-static busybox
        need strace strace
        need e2fsprogs mkfs.ext4
        need checkpolicy checkpolicy
        fetch golang-github-containernetworking-plugin-dnsname usr/lib/cni/dnsname
        fetch aardvark-dns usr/lib/podman/aardvark-dns
        # Where systemd runs, installing it would start it, and close the machine's ports.
        [ -d /run/systemd/system ] || need firewalld firewalld firewall-cmd dbus-daemon
        ;;
    kernel)
        need make make
        need gcc cc
        need libc6-dev /usr/include/stdio.h
        need flex flex
        need bison bison
        need bc bc
        need xz-utils xz
        ;;
    esac
done

settle
[ -n "$was_missing" ] || echo "all there"
