#!/bin/sh
# The guest's first process. It sees the machine's files, read-only, and covers them with a tmpfs: all that the
# job writes is gone afterwards. The kernel's parameters `job` and `folder` are in the environment.
# ttyS0 is the job's output, ttyS1 its report; the last line of that is its exit status.
set -u
: "${job:?}" "${folder:?}"
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# User-mode Linux starts again in place where a guest reboots.
poweroff() {
    busybox poweroff -f
    while :; do sleep 1; done
}
trap poweroff EXIT
set -e

mount -t proc proc /proc
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t devtmpfs devtmpfs dev
mkdir -p dev/pts dev/shm dev/net
mount -t devpts -o ptmxmode=666 devpts dev/pts
[ -e dev/net/tun ] || mknod dev/net/tun c 10 200
ln -sf pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for stream in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${stream%:*}" "dev/${stream#*:}"
done
covered="dev/shm run etc/cni var/lib/cni"
# The tree itself may be below /tmp. Then /tmp is of the overlay, which lacks O_TMPFILE.
case $folder in /tmp/*) ;; *) covered="$covered tmp" ;; esac
for each in $covered; do
    mkdir -p "$each"
    mount -t tmpfs -o mode=1777 tmpfs "$each"
done
chmod 755 run etc/cni var/lib/cni

# Not chroot: the kernel starts its helpers in the real root.
pivot_root . mnt
cd "$folder"
umount -l /mnt
ip link set lo up
stty -F /dev/ttyS0 raw
stty -F /dev/ttyS1 raw
set +e
setsid sh "$job" </dev/null >/dev/ttyS0 2>&1
echo "$?" >/dev/ttyS1
