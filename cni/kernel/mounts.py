"""Mounts of the mount namespace that the calling process is in: mount(2) and umount2(2).

`ctypes` is imported in a function: no call of a plugin mounts anything.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from cni.errors import KernelError

if TYPE_CHECKING:
    from typing import Any

# <linux/mount.h>
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _REC, _SLAVE, _SHARED = 1 << 12, 1 << 14, 1 << 19, 1 << 20
_DETACH = 2


def bind(source: str, target: str, *, with_mounts: bool = False) -> None:
    """Show `source` at `target`, which exists; also all that is mounted below it if `with_mounts` is set.

    Raise CniError 100.
    """
    _mount(source, target, "", _BIND | (_REC if with_mounts else 0))


def isolate() -> None:
    """Keep later mounts of this namespace from others, and get those of others. Raise CniError 100."""
    _mount("none", "/", "", _SLAVE | _REC)


def share(folder: str) -> None:
    """Share mounts below a folder with later mount namespaces, as `ip netns add` does. Raise CniError 100.

    A mount that is removed here is removed there as well, so that no namespace outlives it there.
    """
    try:
        _mount("none", folder, "", _SHARED | _REC)
    except KernelError:
        # It must be a mount point.
        bind(folder, folder, with_mounts=True)
        _mount("none", folder, "", _SHARED | _REC)


def renew(kind: str, target: str) -> bool:
    """Mount a kernel's file system ("proc", "sysfs") that shows the namespaces of this process.

    Return False if the kernel refuses: in a container that must not see all of the former one.
    """
    is_read_only = os.statvfs(target).f_flag & os.ST_RDONLY
    try:
        _mount(kind, target, kind, _NOSUID | _NODEV | _NOEXEC | (_RDONLY if is_read_only else 0))
    except KernelError:
        return False
    return True


def renew_sysfs(target: str = "/sys") -> None:
    """Let /sys show the links of this network namespace, if the kernel permits it."""
    groups = f"{target}/fs/cgroup"
    try:
        fd = os.open(groups, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        renew("sysfs", target)
        return
    try:
        if renew("sysfs", target):
            with suppress(KernelError):
                bind(f"/proc/self/fd/{fd}", groups, with_mounts=True)
    finally:
        os.close(fd)


def unmount(path: str) -> None:
    """Remove the mount at a path, also if it is in use. Raise CniError 100."""
    _call(f"could not unmount {path}", "umount2", path.encode(), _DETACH)


def _mount(source: str, target: str, kind: str, flags: int) -> None:
    _call(
        f"could not mount {source if source != 'none' else 'a copy of'} on {target}",
        "mount",
        source.encode(),
        target.encode(),
        kind.encode(),
        flags,
        None,
    )


def _call(doing: str, name: str, *arguments: bytes | int | None) -> None:
    import ctypes

    library: Any = ctypes.CDLL(None, use_errno=True)
    words = [ctypes.c_ulong(each) if isinstance(each, int) else each for each in arguments]
    if getattr(library, name)(*words) != 0:
        raise KernelError(doing, ctypes.get_errno())
