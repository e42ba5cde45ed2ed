"""The keys of firewall's configuration; pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator
from pydantic_core import PydanticKnownError

from cni.conf import Bool, NetConf, Str
from cni.request import NAME

IPTABLES, NFTABLES, FIREWALLD = "iptables", "nftables", "firewalld"
BACKENDS = (IPTABLES, NFTABLES, FIREWALLD)
OPEN, SAME_BRIDGE, ISOLATED = "open", "same-bridge", "isolated"
STRICT = "strict"
DEFAULT_ADMIN_CHAIN = "CNI-ADMIN"
DEFAULT_ZONE = "trusted"

# What iptables takes: 28 characters, and nothing that it would read as something else.
_CHAIN = re.compile(r"[^\s!\-\"'\\][^\s\"'\\\x00-\x1f\x7f]{0,27}")
# A jump to one of these would decide for all containers, or never end.
_RESERVED = {"ACCEPT", "DROP", "RETURN", "QUEUE", "INPUT", "FORWARD", "OUTPUT", "CNI-FORWARD"}
_RESERVED_PREFIX = "CNI-ISOLATION-"
_ZONE = re.compile(r"[A-Za-z0-9_/-]{1,64}")


def _check_isolate(value: object) -> object:
    if isinstance(value, bool) or value == STRICT:
        return value
    if isinstance(value, str):
        raise ValueError(f'unknown isolation: "{value}", it is true, false or "{STRICT}"')  # noqa: TRY004 - refused as a value
    raise PydanticKnownError("bool_type")


Isolate = Annotated[bool | Literal["strict"], BeforeValidator(_check_isolate)]


class FirewallConf(NetConf):
    """The configuration of firewall.

    Attributes:
        backend: `"iptables"` writes the rules that the Go plugin writes. `"firewalld"` puts addresses into a
            zone of firewalld. `"nftables"` makes addresses elements of a set of its own table. The default,
            which any other string stands for, is firewalld if it runs, else iptables where it works, else
            nftables.
        iptables_admin_chain_name: Chain for the administrator's own rules, which come before those of
            containers. iptables only. The default is `CNI-ADMIN`.
        firewalld_zone: Zone that the addresses become sources of. firewalld only. The default is `trusted`.
        ingress_policy: `"open"`, `"same-bridge"` (networks with this policy do not reach each other) or
            `"isolated"` (nor do containers of the bridge). The default is `"open"`. iptables and firewalld
            use the chains of the Go plugin.
        isolate: With `true`, containers reach no other network that has this key. With `"strict"`, they reach
            no other network of this plugin, and none reaches them. nftables with every backend.
        internal: Let containers reach each other and the host, and nothing else. nftables with every backend.
        icc: With `false`, containers of the network do not reach each other. nftables with every backend.
        allow: Names of other networks whose containers may open connections to this one in spite of
            `isolate`. nftables with every backend.
    """

    backend: Str = ""
    iptables_admin_chain_name: Str = ""
    firewalld_zone: Str = ""
    ingress_policy: Str = ""
    isolate: Isolate = False
    internal: Bool = False
    icc: Bool = True
    allow: tuple[Str, ...] = ()

    @property
    def admin_chain(self) -> str:
        """The chain for the administrator's own rules."""
        return self.iptables_admin_chain_name or DEFAULT_ADMIN_CHAIN

    @property
    def zone(self) -> str:
        """The zone of firewalld."""
        return self.firewalld_zone or DEFAULT_ZONE

    @property
    def ingress(self) -> str:
        """The ingress policy."""
        return self.ingress_policy or OPEN

    @property
    def known_backend(self) -> str:
        """The backend that is asked for by name, "" for the automatic choice."""
        return self.backend if self.backend in BACKENDS else ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.ingress not in {OPEN, SAME_BRIDGE, ISOLATED}:
            raise ValueError(
                f'unknown ingress policy: "{self.ingress}", it is one of {OPEN}, {SAME_BRIDGE}, {ISOLATED}'
            )
        chain = self.admin_chain
        if not _CHAIN.fullmatch(chain) or chain in _RESERVED or chain.startswith(_RESERVED_PREFIX):
            raise ValueError(
                f'iptablesAdminChainName "{chain}" cannot be the name of the administrator\'s chain'
            )
        if not _ZONE.fullmatch(self.zone):
            raise ValueError(f'firewalldZone "{self.zone}" cannot be the name of a zone')
        for each in self.allow:
            if not NAME.fullmatch(each):
                raise ValueError(f'allow: "{each}" cannot be the name of a network')
        return self
