"""The configuration keys of the host-device plugin, and what it saves; no kernel."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

import pytest

from cni.conf import read
from cni.errors import CniError, Code
from cni_host_device.conf import HostDeviceConf
from cni_host_device.plan import Given, Place, parse_given

BASE = {"cniVersion": "1.1.0", "name": "net1", "type": "host-device"}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no device": ({}, 'specify either "device", "hwaddr", "kernelpath" or "pciBusID"'),
    "a path elsewhere": (
        {"kernelpath": "/sys/class/net/eth0"},
        'kernel device path "/sys/class/net/eth0" must be absolute and in /sys/devices',
    ),
    "a path that leaves the folder": (
        {"kernelpath": "/sys/devices/../x"},
        "must be absolute and in /sys/devices",
    ),
    "a bus address that is a path": ({"pciBusID": "../x"}, '"../x" is no bus address of a device'),
    "a runtime's bus address that is a path": (
        {"runtimeConfig": {"deviceID": "a/b"}},
        '"a/b" is no bus address of a device',
    ),
    "a text that is no MAC address": ({"hwaddr": "x"}, "failed to find host device: address x"),
    "a device that is a number": ({"device": 5}, '"device" must be a string, got a number'),
    "itself as IPAM": (
        {"device": "eth1", "ipam": {"type": "host-device"}},
        '"ipam.type" is "host-device", which gives no addresses',
    ),
}


@pytest.mark.parametrize(("keys", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_error_7_and_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(CniError) as caught:
        read(HostDeviceConf, BASE | keys)
    assert caught.value.code == Code.INVALID_CONFIG
    assert message in caught.value.msg


def test_the_runtimes_device_comes_before_the_configured_one() -> None:
    keys = {"pciBusID": "0000:00:01.0", "runtimeConfig": {"deviceID": "0000:00:02.0"}}
    assert read(HostDeviceConf, BASE | keys).bus_id == "0000:00:02.0"


GIVEN = Given(
    "eth1",
    "",
    "uplink",
    "0000:00:02.0",
    "02:00:00:00:00:01",
    1500,
    is_up=True,
    addresses=(ip_interface("192.0.2.1/24"), ip_interface("2001:db8::1/64")),
    place=Place(5, 7, 0),
)


def test_what_is_saved_is_read_again() -> None:
    assert parse_given(GIVEN.to_values()) == GIVEN
    assert parse_given(GIVEN._replace(place=None).to_values()) == GIVEN._replace(place=None)


DAMAGED: dict[str, dict[str, Any]] = {
    "a name of no link": {"name": "../x"},
    "a text as MTU": {"mtu": "x"},
    "no address": {"addresses": ["x"]},
    "no MAC address": {"mac": "02:00"},
    "a place with too much": {"place": [1, 2, 3, 4]},
    "a place that is a number": {"place": 5},
}


@pytest.mark.parametrize("values", DAMAGED.values(), ids=DAMAGED)
def test_values_that_are_damaged_are_not_used(values: dict[str, Any]) -> None:
    assert parse_given(GIVEN.to_values() | values) is None
    assert parse_given({}) is None
