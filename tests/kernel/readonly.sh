#!/bin/sh
# readonly.sh COMMAND...: run it where no file of this machine can be written, in mount, PID, network and IPC
# namespaces of its own, which end with it. /dev/shm is a new tmpfs, for the memory of the guest.
set -eu

# The first process of a PID namespace has number 1; nobody else calls this script as that.
own=$(readlink /proc/self/ns/mnt)
if [ "$$" != 1 ]; then
    READONLY_OUTSIDE=$own exec unshare --mount --pid --net --ipc --fork --kill-child --propagation private -- \
        sh "$0" "$@"
fi
# All below changes mounts, which must not be the machine's.
if [ -z "$own" ] || [ "${READONLY_OUTSIDE:-$own}" = "$own" ]; then
    echo "readonly.sh is not in a mount namespace of its own" >&2
    exit 125
fi
unset READONLY_OUTSIDE
mount -t proc proc /proc
mount -t tmpfs -o mode=1777 tmpfs /dev/shm

# A mount below another one has no path: nothing can write to it, and mount(8) does not find it.
findmnt -nro TARGET | while read -r escaped; do
    target=$(printf '%b' "$escaped")
    [ "$target" = /dev/shm ] || mount -o remount,bind,ro "$target" 2>/dev/null || true
done
findmnt -nro TARGET | while read -r escaped; do
    target=$(printf '%b' "$escaped")
    if [ "$target" != /dev/shm ] && [ -w "$target" ]; then
        echo "$target can be written to" >&2
        exit 125
    fi
done
for each in / /tmp /var/tmp /run "$HOME" "$PWD"; do
    [ ! -w "$each" ] || { echo "$each can be written to" >&2; exit 125; }
done

# Without these capabilities the kernel's process cannot mount anything, nor make devices.
# Not exec: the first process of a PID namespace ignores signals.
setpriv --bounding-set=-all,+dac_override,+dac_read_search --inh-caps=-all -- "$@"
exit $?
