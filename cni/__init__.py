"""The library that CNI plugins are made of. It names no plugin.

`from cni import Plugin, NetConf, CniError` works for every name in `__all__`. The first use of a name imports
its module, so that a call pays only for what it uses. docs/api.md lists the API and what stays stable.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cni.conf import (
        Args,
        Bool,
        DnsConf,
        Int,
        IpamConf,
        Model,
        Mtu,
        NetConf,
        Port,
        PrefixLength,
        Str,
        Unsigned,
        VlanId,
        Within,
        parsed_by,
    )
    from cni.convert import Address, Cidr, Network, OptionalAddress, RouteJson
    from cni.errors import CniError, Code, ErrorList, KernelError
    from cni.plugin import Plugin
    from cni.request import Attachment, Request, Verb
    from cni.result import Dns, Interface, Ip, IpAddress, IpInterface, IpNetwork, Result, Route
    from cni.undo import Undo
    from cni.versions import SUPPORTED

__version__ = "0.1.0"

# The public names of each module.
_PUBLIC = {
    "conf": "Args Bool DnsConf Int IpamConf Model Mtu NetConf Port PrefixLength Str Unsigned VlanId Within"
    " parsed_by",
    "convert": "Address Cidr Network OptionalAddress RouteJson",
    "errors": "CniError Code ErrorList KernelError",
    "plugin": "Plugin",
    "request": "Attachment Request Verb",
    "result": "Dns Interface Ip IpAddress IpInterface IpNetwork Result Route",
    "undo": "Undo",
    "versions": "SUPPORTED",
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names.split()}

__all__ = [
    "SUPPORTED",
    "Address",
    "Args",
    "Attachment",
    "Bool",
    "Cidr",
    "CniError",
    "Code",
    "Dns",
    "DnsConf",
    "ErrorList",
    "Int",
    "Interface",
    "Ip",
    "IpAddress",
    "IpInterface",
    "IpNetwork",
    "IpamConf",
    "KernelError",
    "Model",
    "Mtu",
    "NetConf",
    "Network",
    "OptionalAddress",
    "Plugin",
    "Port",
    "PrefixLength",
    "Request",
    "Result",
    "Route",
    "RouteJson",
    "Str",
    "Undo",
    "Unsigned",
    "Verb",
    "VlanId",
    "Within",
    "parsed_by",
]


# Type checkers take the imports above, so that a name which does not exist is an error for them.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Import the module of a public name at the name's first use."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f"cni.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*globals(), *_HOMES]
