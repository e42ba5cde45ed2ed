"""Tap devices: links of kind tun that carry Ethernet frames between a namespace and a program.

The kernel makes them by ioctl(2) on /dev/net/tun only. A device ends with the descriptor that made it until
it is persistent, so that a killed process leaves none behind.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code, KernelError
from cni.faults import point
from cni.kernel import link
from cni.kernel.attributes import attributes, shown_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.kernel.link import Link
    from cni.kernel.netns import Netns
    from cni.kernel.rtnetlink import Netlink

KIND = "tun"
NOUN = "tap"
_DOING = f"failed to create {NOUN}"
_DEVICE = "/dev/net/tun"
_EXEC_LABEL, _SELINUX = "/proc/thread-self/attr/exec", "/sys/fs/selinux/enforce"
_PROGRAM_WITHIN_S = 10

# <linux/if_tun.h>
_TUNSETIFF, _TUNSETPERSIST, _TUNSETOWNER, _TUNSETGROUP = 0x400454CA, 0x400454CB, 0x400454CC, 0x400454CE
_IFF_TAP, _IFF_MULTI_QUEUE, _IFF_NO_PI, _IFF_VNET_HDR, _IFF_TUN_EXCL = 0x2, 0x100, 0x1000, 0x4000, 0x8000
_REQUEST = struct.Struct("=16sH22x")
# IFLA_TUN_*, <linux/if_link.h>
_OWNER, _GROUP, _TYPE, _MULTI_QUEUE = 1, 2, 3, 7


class Settings(NamedTuple):
    """The settings of a device. `owner` and `group` are numeric IDs, None for no restriction.

    A user that is neither the owner nor in the group needs CAP_NET_ADMIN to open the device. `mac` "" and
    `mtu` 0 leave these to the kernel. `label` is an SELinux context, "" for that of this process.
    """

    multi_queue: bool = False
    owner: int | None = None
    group: int | None = None
    mac: str = ""
    mtu: int = 0
    label: str = ""


def create(nl: Netlink, ns: Netns, name: str, settings: Settings) -> bool:
    """Create a persistent device in `ns`, down, in the group of unfinished links; `nl` is a socket in `ns`.

    Return False if a link of that name exists. Raise CniError, with code 7 for a label that the host does
    not have.
    """
    if settings.label:
        return _create_labelled(nl, ns, name, settings)
    with _made(name, settings, ns) as device:
        if device < 0:
            return False
        _set_up(nl, name, settings)
        _control(device, _TUNSETPERSIST, 1)
    point("netlink.changed")
    return True


def try_create() -> None:
    """Create a device in the namespace that the thread is in, for a moment. Raise CniError if that fails."""
    with _made("probe", Settings()):
        pass


@contextmanager
def _made(name: str, settings: Settings, ns: Netns | None = None) -> Iterator[int]:
    """Yield the descriptor that holds a new device, -1 if a link of that name exists."""
    if ns is None:
        device = _open()
    else:
        # The device is made in the namespace in which the file was opened.
        with ns.entered():
            device = _open()
    try:
        flags = _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR | _IFF_TUN_EXCL
        flags |= _IFF_MULTI_QUEUE if settings.multi_queue else 0
        try:
            fcntl.ioctl(device, _TUNSETIFF, _REQUEST.pack(name.encode(), flags))
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise KernelError(_DOING, error.errno or errno.EIO) from error
            yield -1
            return
        for command, number in ((_TUNSETOWNER, settings.owner), (_TUNSETGROUP, settings.group)):
            if number is not None:
                _control(device, command, number)
        yield device
    finally:
        os.close(device)


def _open() -> int:
    try:
        return os.open(_DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CniError(
            Code.KERNEL,
            f"{_DOING}: could not open {_DEVICE}: {reason}",
            "load the kernel's module (modprobe tun), and give the plugin this device file",
        ) from error


def _control(device: int, command: int, number: int) -> None:
    try:
        # Python takes a signed number of 32 bits.
        fcntl.ioctl(device, command, number - (1 << 32) if number >> 31 else number)
    except OSError as error:
        raise KernelError(f"{_DOING} with ID {number}", error.errno or errno.EIO) from error


def _set_up(nl: Netlink, name: str, settings: Settings) -> None:
    index = link.get(nl, name).index
    changes = [link.set_unfinished(name, index)]
    changes += [link.set_mac(name, index, settings.mac)] if settings.mac else []
    changes += [link.set_mtu(name, index, settings.mtu)] if settings.mtu else []
    nl.batch(changes)


def _create_labelled(nl: Netlink, ns: Netns, name: str, settings: Settings) -> bool:
    """Create a device with a label: it has that of the process which makes it, so a program does it."""
    if link.find(nl, name):
        return False
    with ns.entered(), _exec_label(settings.label):
        try:
            run_program(name, settings)
        except CniError as error:
            # The policy knows the context, but not the change to it.
            if isinstance(error.__cause__, PermissionError):
                raise _refused(settings.label, error.__cause__) from error
            raise
    _set_up(nl, name, settings)
    return True


def require_selinux(label: str) -> None:
    """Raise CniError 7 if the host has no SELinux, which a label needs."""
    if not os.path.exists(_SELINUX):  # noqa: PTH110 - a cold call does without pathlib
        raise CniError(
            Code.INVALID_CONFIG,
            f'{_DOING}: "selinuxContext" is "{label}", but this host has no SELinux',
            'remove "selinuxContext"',
        )


@contextmanager
def _exec_label(label: str) -> Iterator[None]:
    """Let programs that the thread executes run with a label."""
    require_selinux(label)
    try:
        _write(_EXEC_LABEL, label)
    except OSError as error:
        raise _refused(label, error) from error
    try:
        yield
    finally:
        _write(_EXEC_LABEL, "")


def _refused(label: str, error: OSError) -> CniError:
    reason = (error.strerror or "").lower()
    details = "name a context of the loaded policy that the plugin may change to"
    return CniError(Code.INVALID_CONFIG, f'{_DOING}: SELinux refuses "{label}": {reason}', details)


def _write(path: str, content: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(file, content.encode() or b"\0")
    finally:
        os.close(file)


def run_program(name: str, settings: Settings) -> None:
    """Create a persistent device by `ip`, in the namespace that the thread is in. Raise CniError."""
    # Only a configuration with a label needs it.
    from cni.kernel import child

    program = child.find("ip")
    if program is None:
        raise CniError(Code.KERNEL, f"{_DOING}: the program ip was not found", "install iproute2")
    command = [program, "tuntap", "add", "mode", "tap", "name", name, "vnet_hdr"]
    command += ["multi_queue"] if settings.multi_queue else []
    command += [] if settings.owner is None else ["user", str(settings.owner)]
    command += [] if settings.group is None else ["group", str(settings.group)]
    done = child.run(command, timeout_s=_PROGRAM_WITHIN_S)
    if done.status:
        raise CniError(Code.KERNEL, f"{_DOING}: {done.stderr or f'ip ended with {done.status}'}")


def is_tap(own: Link) -> bool:
    """Return whether a link of the kind carries Ethernet frames, not IP packets."""
    return shown_number(attributes(own.data, {_TYPE}).get(_TYPE, b"")) == _IFF_TAP


def describe(own: Link) -> Settings:
    """Return the settings of a device but for its label, which the kernel does not show."""
    data = attributes(own.data, {_OWNER, _GROUP, _MULTI_QUEUE})
    owner, group = (shown_number(data[key]) if key in data else None for key in (_OWNER, _GROUP))
    return Settings(bool(shown_number(data.get(_MULTI_QUEUE, b""))), owner, group, own.mac, own.mtu)
