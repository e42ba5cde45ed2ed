"""The configuration of host-local, validated; the error texts begin as the Go plugin's do. Pure."""

from __future__ import annotations

from functools import cached_property
from pathlib import PurePosixPath
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from cni.addresses import parse_cidr, parse_ip
from cni.conf import Args, Bool, IpamConf, Model, Str
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


def _requested(value: object) -> object:
    if not isinstance(value, str):
        raise ValueError(f"invalid IP address {value!r}: it is no text")  # noqa: TRY004 - pydantic's way
    return parse_requested(value)


RequestedAddress = Annotated[IpAddress, BeforeValidator(_requested)]
FilePath = Annotated[Str, AfterValidator(_check_path)]


class RangeConf(Model):
    """A range as it is configured; all but `subnet` have defaults, "" counts as not given."""

    subnet: Cidr | None = None
    range_start: OptionalAddress = None
    range_end: OptionalAddress = None
    gateway: OptionalAddress = None

    def to_range(self) -> Range:
        """Give the range with its defaults filled in. Raises ValueError."""
        return make_range(self.subnet, self.range_start, self.range_end, self.gateway)


RangeSetConf = tuple[RangeConf, ...]


class HostLocalIpam(IpamConf, RangeConf):
    """The `ipam` object. `subnet` and what goes with it are the old way to write a first range set."""

    ranges: tuple[RangeSetConf, ...] = ()
    routes: tuple[RouteJson, ...] = ()
    data_dir: FilePath = ""
    resolv_conf: FilePath = ""
    status_fails_when_full: Bool = False
    keep_over_boot: Bool = False


class ArgsOfCni(Model):
    """The part of `args` that the conventions give to plugins."""

    ips: tuple[RequestedAddress, ...] = ()


class HostLocalArgs(Args):
    """The `args` object."""

    cni: ArgsOfCni = Field(default_factory=ArgsOfCni)  # type: ignore[assignment]  # the same object, read closer


class RuntimeConf(Model):
    """What the runtime adds for the capabilities `ips` and `ipRanges`."""

    ips: tuple[RequestedAddress, ...] = ()
    ip_ranges: Annotated[tuple[RangeSetConf, ...], BeforeValidator(_sets_by_family)] = ()


class HostLocalConf(RequiresIpam):
    """All of the configuration that host-local looks at."""

    ipam: HostLocalIpam
    args: HostLocalArgs = Field(default_factory=HostLocalArgs)
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)

    @cached_property
    def folder(self) -> PurePosixPath:
        """Where the network's leases lie."""
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
            raise ValueError("no IP ranges specified: give ipam.ranges, a list of lists of ranges")
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
