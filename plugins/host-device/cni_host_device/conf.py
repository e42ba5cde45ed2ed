"""The configuration keys of the host-device plugin; pure."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, model_validator

from cni.conf import Str
from cni.interface.conf import InterfaceConf, RuntimeGateway, parse_mac

_KERNEL_PATH = "/sys/devices/"
# As 0000:03:00.1 for PCI, and mlx5_core.sf.4 for the auxiliary bus.
_BUS_ID = re.compile(r"[0-9A-Za-z_][0-9A-Za-z_.:-]*")


class RuntimeDevice(RuntimeGateway):
    """The part of `runtimeConfig` that the runtime passes for the capability `deviceID`.

    Attributes:
        device_id: Bus address of the device, which a device plugin of Kubernetes has chosen. It comes before
            all keys of the configuration.
    """

    device_id: Str = Field(default="", alias="deviceID")


class HostDeviceConf(InterfaceConf):
    """The configuration of a network whose container gets a device of the host.

    Attributes:
        device: Name of the device. One of the first four keys is required.
        hwaddr: MAC address of the device.
        kernelpath: Folder of the device below `/sys/devices/`.
        pci_bus_id: PCI address of the device, as `"0000:03:00.1"`.
        runtime_config: What the runtime adds for capabilities.
    """

    plugin = "host-device"
    device: Str = ""
    hwaddr: Str = ""
    kernelpath: Str = ""
    pci_bus_id: Str = Field(default="", alias="pciBusID")
    runtime_config: RuntimeDevice = Field(default_factory=RuntimeDevice)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not any((self.device, self.hwaddr, self.kernelpath, self.bus_id)):
            raise ValueError('specify either "device", "hwaddr", "kernelpath" or "pciBusID"')
        if self.kernelpath and (
            not self.kernelpath.startswith(_KERNEL_PATH) or ".." in self.kernelpath.split("/")
        ):
            raise ValueError(f'kernel device path "{self.kernelpath}" must be absolute and in /sys/devices')
        if self.bus_id and not _BUS_ID.fullmatch(self.bus_id):
            raise ValueError(f'"{self.bus_id}" is no bus address of a device, as "0000:03:00.1"')
        return self

    @model_validator(mode="after")
    def _check_mac(self) -> Self:
        if self.hwaddr:
            parse_mac(self.hwaddr, "failed to find host device")
        return self

    @property
    def bus_id(self) -> str:
        """The bus address that the runtime has chosen, else the configured PCI address."""
        return self.runtime_config.device_id or self.pci_bus_id
