"""The configuration of host-local, validated; the error texts begin as the Go plugin's do. Pure."""

from __future__ import annotations

from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cni.addresses import parse_cidr, parse_ip
from cni.conf import Args, Bool, IpamConf, Model, Str, parsed_by
from cni.convert import Cidr, OptionalAddress, RouteJson
from cni.ipam.rules import RequiresIpam, check_families
from cni.result import IpAddress
from cni_host_local_ipam.ranges import Range, RangeSet, check_range_sets, make_range, make_range_set

DEFAULT_DATA_DIR = "/var/lib/cni/networks"


def parse_requested(text: str) -> IpAddress:
    """Read "10.1.0.5" or "10.1.0.5/16", whose prefix does not matter. Raises ValueError."""
    if not text:
        raise ValueError("cannot understand ip: IP <nil> not v4 nor v6: it is empty")
    try:
        return parse_cidr(text).ip if "/" in text else parse_ip(text)
    except ValueError:
        raise ValueError(f"invalid IP address {text}") from None


def _check_path(text: str) -> str:
    if "\0" in text or not text.isprintable():
        raise ValueError(f"invalid path {text!r}: it has characters that no path has")
    return text


def _sets_by_family(value: object) -> object:
    """Make range sets of a flat list of ranges, as containerd's clients send it: one set per family."""
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        return value
    sets: dict[bool, list[object]] = {}
    for each in value:
        subnet = {key.lower(): member for key, member in each.items()}.get("subnet")
        sets.setdefault(":" in str(subnet), []).append(each)
    return list(sets.values())


RequestedAddress = Annotated[IpAddress, parsed_by(parse_requested)]
FilePath = Annotated[Str, AfterValidator(_check_path)]


class RangeConf(Model):
    """A range of addresses. `""` counts as not given.

    Attributes:
        subnet: Subnet of the range, `"10.1.0.0/16"`, without host bits. At most /30 or /126. Required.
        range_start: First address to lease. The default is the one after the network's.
        range_end: Last address to lease. The default is the last of the subnet, for IPv4 the one before the
            broadcast address.
        gateway: Address of the gateway, which is never leased. It may be outside the subnet. The default is
            the first address after the network's.
    """

    subnet: Cidr | None = None
    range_start: OptionalAddress = None
    range_end: OptionalAddress = None
    gateway: OptionalAddress = None

    def to_range(self) -> Range:
        """Return the range with its defaults. Raises ValueError."""
        return make_range(self.subnet, self.range_start, self.range_end, self.gateway)


RangeSetConf = tuple[RangeConf, ...]


class HostLocalIpam(IpamConf, RangeConf):
    """The `ipam` object. `subnet`, `rangeStart`, `rangeEnd` and `gateway` are the old way to write one range.

    Attributes:
        type: `"host-local"`.
        subnet: The old way to write a range set of one range, which comes before `ranges`: its subnet.
        range_start: The old way: first address to lease.
        range_end: The old way: last address to lease.
        gateway: The old way: address of the gateway.
        ranges: Range sets. Each is an array of ranges of one family. A container gets one address of each
            set.
        routes: Routes of the container, passed on unchanged.
        data_dir: Folder of the pools. The default is `/var/lib/cni/networks`.
        resolv_conf: File in the form of resolv.conf(5). Its contents become the `dns` of the result.
        status_fails_when_full: STATUS fails with code 50 if a set has no free address. Otherwise it warns on
            stderr.
        keep_over_boot: Keep leases from before the last boot, see [Crashes and
            reboots](#crashes-and-reboots).
    """

    ranges: tuple[RangeSetConf, ...] = ()
    routes: tuple[RouteJson, ...] = ()
    data_dir: FilePath = ""
    resolv_conf: FilePath = ""
    status_fails_when_full: Bool = False
    keep_over_boot: Bool = False


class ArgsOfCni(Model):
    """The part of `args` that the conventions give to plugins.

    Attributes:
        ips: Addresses to lease, as `runtimeConfig.ips`. Both are added to `IP` in CNI_ARGS.
    """

    ips: tuple[RequestedAddress, ...] = ()


class HostLocalArgs(Args):
    """The `args` object.

    Attributes:
        cni: The part that the conventions give to plugins.
    """

    cni: ArgsOfCni = Field(default_factory=ArgsOfCni)  # type: ignore[assignment]  # the same object, read closer


class RuntimeConf(Model):
    """Keys that the runtime adds for the capabilities `ips` and `ipRanges`.

    Attributes:
        ips: Addresses to lease, `"10.1.0.5"` or `"10.1.0.5/16"`. All must be available, at most one in each
            set.
        ip_ranges: Range sets that come before all others. A flat array of ranges, as containerd's clients
            write it, makes one set for each family.
    """

    ips: tuple[RequestedAddress, ...] = ()
    ip_ranges: Annotated[tuple[RangeSetConf, ...], BeforeValidator(_sets_by_family)] = ()


class HostLocalConf(RequiresIpam):
    """The configuration of host-local."""

    ipam: HostLocalIpam
    args: HostLocalArgs = Field(default_factory=HostLocalArgs)
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)

    @cached_property
    def folder(self) -> PurePosixPath:
        """Return the directory of the network's leases."""
        return PurePosixPath(self.ipam.data_dir or DEFAULT_DATA_DIR) / self.name

    @property
    def requested(self) -> tuple[IpAddress, ...]:
        """The addresses that `args` and the runtime ask for, in this order."""
        return self.args.cni.ips + self.runtime_config.ips

    @cached_property
    def range_sets(self) -> tuple[RangeSet, ...]:
        """The range sets, the runtime's before the old-style one before `ranges`. Raises ValueError."""
        old_style = ((self.ipam,),) if self.ipam.subnet else ()
        configured = self.runtime_config.ip_ranges + old_style + self.ipam.ranges
        if not configured:
            raise ValueError('no IP ranges specified: "ipam.ranges" must be an array of arrays of ranges')
        return tuple(_make_set(number, each) for number, each in enumerate(configured))

    @model_validator(mode="after")
    def _check_ranges(self) -> Self:
        check_families((each[0].subnet.version for each in self.range_sets), self.cni_version)
        check_range_sets(self.range_sets)
        return self


def _make_set(number: int, configured: RangeSetConf) -> RangeSet:
    try:
        return make_range_set(tuple(each.to_range() for each in configured))
    except ValueError as error:
        raise ValueError(f"invalid range set {number}: {error}") from None
