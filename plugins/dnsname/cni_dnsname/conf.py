"""The configuration keys of the dnsname plugin; pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated

from pydantic import AfterValidator, Field

from cni.conf import Bool, Model, NetConf, Str
from cni.dns.names import normal_name


def _check_name(text: str) -> str:
    return normal_name(text)


def _check_domain(text: str) -> str:
    return normal_name(text.strip(".")) if text.strip(".") else ""


def _check_server(text: str) -> str:
    address, _, scope = text.partition("%")
    try:
        shown = str(ip_address(address))
    except ValueError:
        raise ValueError(f'"{text}" is no IP address of a DNS server') from None
    return f"{shown}%{scope}" if scope else shown


Name = Annotated[Str, AfterValidator(_check_name)]


Server = Annotated[Str, AfterValidator(_check_server)]


class DnsConf(Model):
    """The resolver of the container, as runtimes pass it for the capability `dns`.

    Attributes:
        servers: Addresses of the DNS servers that answer this container for all other names, in place of
            `upstreams`. They are asked from the host. An internal network asks none.
    """

    servers: tuple[Server, ...] = ()


class RuntimeConf(Model):
    """Keys that the runtime adds for the capabilities `aliases` and `dns`.

    Attributes:
        aliases: More names of the container, by the name of the network. Containers may share one.
        dns: The container's own resolver.
    """

    aliases: dict[Str, tuple[Name, ...]] = Field(default_factory=dict)
    dns: DnsConf = Field(default_factory=DnsConf)


class DnsnameConf(NetConf):
    """The configuration of dnsname.

    Attributes:
        domain_name: Domain of the network. A container has its name also with this domain. No name in the
            domain is ever asked of another server.
        upstreams: Addresses of the DNS servers that answer for all other names. The default are those of the
            host's resolv.conf, which is read again when it changes. With `[]` other names do not exist.
        internal: Answer the names of the network's containers only, as with `"upstreams": []`.
        runtime_config: Keys that the runtime adds.
    """

    domain_name: Annotated[Str, AfterValidator(_check_domain)] = ""
    upstreams: tuple[Server, ...] | None = None
    internal: Bool = False
    runtime_config: RuntimeConf = Field(default_factory=RuntimeConf)
