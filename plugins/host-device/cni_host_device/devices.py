"""Find a device of the host by what the configuration says of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.interface.conf import parse_mac
from cni.kernel import link

if TYPE_CHECKING:
    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink
    from cni_host_device.conf import HostDeviceConf

_PCI, _AUXILIARY = Path("/sys/bus/pci/devices"), Path("/sys/bus/auxiliary/devices")
# With these drivers a device has no link: a program in the container drives it.
_USERSPACE_DRIVERS = {"vfio-pci", "uio_pci_generic", "igb_uio"}


class Device(NamedTuple):
    """A device of the host. `link` is None for a device that a program in user space drives."""

    link: Link | None
    bus_id: str = ""


def find(conf: HostDeviceConf, nl: Netlink) -> Device:
    """Return the device. Raise CniError 100 if the host has none such, 7 for an unknown bus address."""
    if conf.bus_id:
        folder = _find_on_bus(conf.bus_id)
        if _driver_of(folder) in _USERSPACE_DRIVERS:
            return Device(None, conf.bus_id)
        return Device(_find_below(nl, folder, f"bus address {conf.bus_id}"), conf.bus_id)
    if conf.device:
        return Device(_required(link.find(nl, conf.device), f'"{conf.device}"', nl))
    if conf.hwaddr:
        mac = parse_mac(conf.hwaddr)
        present = next((each for each in link.list_links(nl) if each.mac == mac), None)
        return Device(_required(present, f"MAC address {mac}", nl))
    return Device(_find_below(nl, Path(conf.kernelpath), f"kernel path {conf.kernelpath}"))


def _find_on_bus(bus_id: str) -> Path:
    for bus in (_PCI, _AUXILIARY):
        if (bus / bus_id).exists():
            return bus / bus_id
    raise CniError(
        Code.INVALID_CONFIG,
        f"runtime config DeviceID {bus_id} not found or unsupported",
        f"it is neither in {_PCI} nor in {_AUXILIARY}",
    )


def _driver_of(folder: Path) -> str:
    try:
        return (folder / "driver").readlink().name
    except OSError:
        return ""


def _find_below(nl: Netlink, folder: Path, described: str) -> Link:
    """Return the link whose device is in a folder of sysfs, or is the folder itself."""
    for place in (folder / "net", *sorted(folder.glob("virtio*/net")), folder):
        names = [place.name] if place == folder else _list(place)
        for name in names:
            if (place == folder and not (folder / "ifindex").exists()) or not (
                present := link.find(nl, name)
            ):
                continue
            return present
    return _required(None, described, nl)


def _list(folder: Path) -> list[str]:
    try:
        return sorted(each.name for each in folder.iterdir())
    except OSError:
        return []


def _required(present: Link | None, described: str, nl: Netlink) -> Link:
    if present is None:
        names = ", ".join(each.name for each in link.list_links(nl) if not each.flags & link.IFF_LOOPBACK)
        raise CniError(
            Code.KERNEL,
            f"failed to find host device: no link with {described}"
            if '"' not in described
            else f"failed to find host device {described}: Link not found",
            f"the host has {names or 'none'}",
        )
    if present.flags & link.IFF_LOOPBACK:
        raise CniError(Code.INVALID_CONFIG, f"{present.name} cannot be moved: it is the loopback device")
    return present
