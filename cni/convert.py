"""Results as the JSON of each spec version, both ways (CNI spec 1.1.0, section 5).

Three shapes exist: 0.1.0/0.2.0 (`ip4`, `ip6`), 0.3.0 to 0.4.0 and 1.x. `Result` is the last of them;
the older shapes drop what they cannot express. A result has the fields of its version only: fields of
interfaces and routes that came with 1.1.0 are dropped from older results, whichever plugin added them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import Field
from pydantic_core import PydanticSerializationError, to_json

from cni.addresses import parse_cidr, parse_ip, parse_network
from cni.conf import DnsConf, Int, Model, Str, Unsigned, parsed_by, read
from cni.errors import CniError, Code
from cni.result import Interface, Ip, IpAddress, IpInterface, IpNetwork, Result, Route
from cni.versions import FIRST_WITH_DETAILS, OLDEST, at_least

OLDEST_SHAPE = ("0.1.0", "0.2.0")
MIDDLE_SHAPE = ("0.3.0", "0.3.1", "0.4.0")
NEWEST_SHAPE = ("1.0.0", "1.1.0")

Json = dict[str, Any]


Address = Annotated[IpAddress, parsed_by(parse_ip)]
OptionalAddress = Annotated[IpAddress | None, parsed_by(lambda text: parse_ip(text) if text else None)]
Cidr = Annotated[IpInterface, parsed_by(parse_cidr)]
Network = Annotated[IpNetwork, parsed_by(parse_network)]


class RouteJson(Model):
    """A route, as in results and in the `routes` of IPAM configurations (CNI spec 1.1.0, section 5).

    Attributes:
        dst: Destination, `"10.1.0.0/16"`.
        gw: Next hop. The default is the gateway of the family's address.
        mtu: MTU along the route. 0 leaves it to the kernel.
        advmss: Greatest segment size that TCP announces. 0 leaves it to the kernel.
        priority: Metric: the route with the lowest counts.
        table: Routing table. The default is the main table.
        scope: Scope of the destination: 0 is global, 253 is the link, 254 is the host.
    """

    dst: Network
    gw: OptionalAddress = None
    mtu: Unsigned = 0
    advmss: Unsigned = 0
    priority: Unsigned = 0
    table: Unsigned | None = None
    scope: Annotated[Int, Field(ge=0, le=0xFF)] | None = None

    def to_route(self) -> Route:
        """Return the route as a member of a Result."""
        return Route(self.dst, self.gw, self.mtu, self.advmss, self.priority, self.table, self.scope)


class _InterfaceJson(Model):
    name: Str
    mac: Str = ""
    sandbox: Str = ""
    mtu: Unsigned = 0
    socket_path: Str = ""
    pci_id: Str = Field(default="", alias="pciID")

    def to_interface(self) -> Interface:
        return Interface(self.name, self.mac, self.sandbox, self.mtu, self.socket_path, self.pci_id)


class _IpJson(Model):
    address: Cidr
    gateway: OptionalAddress = None
    interface: Annotated[Int, Field(ge=0)] | None = None

    def to_ip(self) -> Ip:
        return Ip(self.address, self.gateway, self.interface)


class _ResultJson(Model):
    interfaces: tuple[_InterfaceJson, ...] = ()
    ips: tuple[_IpJson, ...] = ()
    routes: tuple[RouteJson, ...] = ()
    dns: DnsConf = Field(default_factory=DnsConf)

    def to_result(self) -> Result:
        return Result(
            tuple(each.to_interface() for each in self.interfaces),
            tuple(each.to_ip() for each in self.ips),
            tuple(each.to_route() for each in self.routes),
            self.dns.to_dns(),
        )


class _OldIpJson(Model):
    ip: Cidr
    gateway: OptionalAddress = None
    routes: tuple[RouteJson, ...] = ()


class _OldResultJson(Model):
    ip4: _OldIpJson | None = None
    ip6: _OldIpJson | None = None
    dns: DnsConf = Field(default_factory=DnsConf)

    def to_result(self) -> Result:
        given = [each for each in (self.ip4, self.ip6) if each]
        return Result(
            ips=tuple(Ip(each.ip, each.gateway) for each in given),
            routes=tuple(route.to_route() for each in given for route in each.routes),
            dns=self.dns.to_dns(),
        )


def parse_result(document: Json, default_version: str, document_name: str = "result") -> Result:
    """Return a result of any version, parsed. `default_version` counts if the document names none.

    `document_name` names the document in errors, such as "prevResult". Raise CniError 6 for an unknown
    version, and CniError 7 that names the key for a malformed result.
    """
    if _version_of(document, default_version, document_name) in OLDEST_SHAPE:
        return read(_OldResultJson, document, document_name).to_result()
    return read(_ResultJson, document, document_name).to_result()


def _version_of(document: Json, default: str, document_name: str) -> str:
    folded = {key.lower(): value for key, value in document.items()}
    version = folded.get("cniversion") or default or OLDEST
    known = OLDEST_SHAPE + MIDDLE_SHAPE + NEWEST_SHAPE
    if version not in known:
        raise CniError(
            Code.DECODING_FAILURE,
            f"could not parse {document_name}: no result type of version {json.dumps(version)}",
            f"Known versions: {', '.join(known)}.",
        )
    return str(version)


def show_result(result: Result, version: str) -> Json:
    """Return a result as the JSON object of a spec version ("" counts as 0.1.0).

    Raise CniError 7 if the version cannot express it: 0.2.0 and older need an address.
    """
    version = version or OLDEST
    if version in OLDEST_SHAPE:
        return {"cniVersion": version} | _show_oldest(result)
    has_details = at_least(version, FIRST_WITH_DETAILS)
    # A result of an IPAM plugin has no interfaces. It keeps all details of routes in each version.
    has_route_details = has_details or not result.interfaces
    shown: Json = {
        "cniVersion": version,
        "interfaces": [_show_interface(each, has_details=has_details) for each in result.interfaces],
        "ips": [_show_ip(each, version) for each in result.ips],
        "routes": [_show_route(each, has_details=has_route_details) for each in result.routes],
    }
    shown = {key: value for key, value in shown.items() if value}
    if result.dns or version in MIDDLE_SHAPE:
        shown["dns"] = _show_dns(result)
    return shown


def _show_oldest(result: Result) -> Json:
    shown: Json = {}
    for family in (4, 6):
        first = next((ip for ip in result.ips if ip.address.version == family), None)
        if first is None:
            continue
        routes = [
            _given({"dst": str(route.dst), "gw": _address(route.gw)})
            for route in result.routes
            if route.dst.version == family
        ]
        shown[f"ip{family}"] = _given(
            {"ip": str(first.address), "gateway": _address(first.gateway), "routes": routes}
        )
    if not shown:
        raise CniError(
            Code.INVALID_CONFIG,
            "cannot convert: no valid IP addresses",
            'Set "cniVersion" to 0.3.0 or newer: results of older versions must have an address.',
        )
    return shown | {"dns": _show_dns(result)}


def _show_interface(interface: Interface, *, has_details: bool) -> Json:
    shown: Json = {"name": interface.name, "mac": interface.mac, "sandbox": interface.sandbox}
    if has_details:
        shown |= {"mtu": interface.mtu, "socketPath": interface.socket_path, "pciID": interface.pci_id}
    return _given(shown)


def _show_ip(ip: Ip, version: str) -> Json:
    shown: Json = {"version": str(ip.address.version)} if version in MIDDLE_SHAPE else {}
    if ip.interface is not None:
        shown["interface"] = ip.interface
    return shown | _given({"address": str(ip.address), "gateway": _address(ip.gateway)})


def _show_route(route: Route, *, has_details: bool) -> Json:
    shown = _given({"dst": str(route.dst), "gw": _address(route.gw)})
    if not has_details:
        return shown
    shown |= _given({"mtu": route.mtu, "advmss": route.advmss, "priority": route.priority})
    set_even_to_0 = {"table": route.table, "scope": route.scope}
    return shown | {key: value for key, value in set_even_to_0.items() if value is not None}


def _show_dns(result: Result) -> Json:
    dns = result.dns
    return _given(
        {
            "nameservers": list(dns.nameservers),
            "domain": dns.domain,
            "search": list(dns.search),
            "options": list(dns.options),
        }
    )


def _given(members: Json) -> Json:
    return {key: value for key, value in members.items() if value}


def _address(address: IpAddress | None) -> str:
    return "" if address is None else str(address)


def dumps(document: Json) -> bytes:
    """Return the text that a plugin prints: 4 spaces, keys sorted from 1.0.0 on, no newline at the end."""
    version = str(document.get("cniVersion", ""))
    newest = version in NEWEST_SHAPE and "code" not in document
    shown = _sorted(document) if newest else document
    try:
        # The json module indents in Python, not in C, which takes 0.1 ms for a result.
        return to_json(shown, indent=4)
    except PydanticSerializationError:
        return json.dumps(shown, indent=4, ensure_ascii=False).encode(errors="replace")


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
