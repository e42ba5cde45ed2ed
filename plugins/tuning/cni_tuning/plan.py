"""The wanted attributes of the interface, the wanted sysctls, and the result with them; pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.interface.conf import parse_mac

if TYPE_CHECKING:
    from cni.result import Interface, Ip, Result
    from cni_tuning.conf import TuningConf


class Attributes(NamedTuple):
    """Attributes of a link, to set or to restore; None leaves one as it is."""

    mac: str | None = None
    mtu: int | None = None
    promisc: bool | None = None
    allmulti: bool | None = None
    queue_length: int | None = None

    def __bool__(self) -> bool:
        return any(each is not None for each in self)


def plan_attributes(conf: TuningConf, cni_args: dict[str, str]) -> Attributes:
    """Return the attributes to set; `args.cni` has precedence. Raise CniError 7 for a wrong MAC address."""
    args = conf.args.cni
    mac = conf.runtime_config.mac or cni_args.get("MAC", "") or conf.mac
    mac = mac if args.mac is None else args.mac
    mtu = conf.mtu if args.mtu is None else args.mtu
    return Attributes(
        mac=_parse_mac(mac) if mac else None,
        mtu=mtu or None,
        promisc=conf.promisc if args.promisc is None else args.promisc,
        allmulti=conf.allmulti if args.allmulti is None else args.allmulti,
        queue_length=conf.tx_q_len if args.tx_q_len is None else args.tx_q_len,
    )


def _parse_mac(text: str) -> str:
    try:
        return parse_mac(text)
    except CniError as error:
        message = f"invalid args {text} for MAC addr: address {text}: invalid MAC address"
        raise CniError(Code.INVALID_CONFIG, message, error.details) from None


def refuse_duplicates(document: bytes) -> None:
    """Raise CniError 7 if a configuration has a sysctl twice: a JSON decoder keeps the last value only."""
    members = json.loads(document.decode(errors="replace"), object_pairs_hook=list)
    keys = [key for name, value in members if name.lower() == "sysctl" for key, _ in value or ()]
    if doubled := next((key for key in keys if keys.count(key) > 1), None):
        raise duplicate(doubled)


def duplicate(key: str) -> CniError:
    """Return the error for a sysctl that a configuration has twice."""
    return CniError(
        Code.INVALID_CONFIG,
        "duplicated sysctl keys are not allowed",
        f'Remove all but one of the entries for "{key}".',
    )


def plan_result(result: Result, ifname: str, attributes: Attributes, host_end: str) -> Result:
    """Return the result with the new MAC address and MTU; `host_end` has the new MTU, too, "" for none."""
    inside = result.container_interface(ifname)

    def tuned(each: Interface) -> Interface:
        if each is inside:
            return each._replace(mac=attributes.mac or each.mac, mtu=attributes.mtu or each.mtu)
        if host_end and (each.name, each.sandbox) == (host_end, ""):
            return each._replace(mtu=attributes.mtu or each.mtu)
        return each

    return result._replace(interfaces=tuple(map(tuned, result.interfaces)))


def own_ips(result: Result, ifname: str) -> tuple[Ip, ...]:
    """Return the addresses of the container's interface; those that name no interface are its own, too."""
    inside = result.container_interface(ifname)
    place = result.interfaces.index(inside) if inside else None
    return tuple(ip for ip in result.ips if ip.interface in {None, place})
