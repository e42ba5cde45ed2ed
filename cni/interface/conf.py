"""Configuration keys that several interface plugins have; pure.

A plugin's model derives from the classes whose keys it has, and the docstrings here describe these keys.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from cni.addresses import parse_exact_network
from cni.conf import Bool, Int, Model, Mtu, NetConf, Str, parsed_by, wrong_type
from cni.errors import CniError, Code
from cni.result import IpNetwork

IFNAME_BYTES = 15
PRIORITY_MIN, PRIORITY_MAX = -100, 100
Priority = Annotated[Int, Field(ge=PRIORITY_MIN, le=PRIORITY_MAX)]
# The words for IP versions in configurations.
FAMILIES = {"ipv4": 4, "ipv6": 6}
# No separators, nothing unprintable, and no "%", which the kernel takes for a pattern.
_LINK_NAME = re.compile(r"(?!\.\.?$)[^\s/:%\x00-\x1f\x7f]+")
_MAC_FORMS = tuple(
    re.compile(form, re.ASCII | re.IGNORECASE)
    for form in (
        "[0-9a-f]{2}(:[0-9a-f]{2}){5}",
        "[0-9a-f]{2}(-[0-9a-f]{2}){5}",
        r"[0-9a-f]{4}(\.[0-9a-f]{4}){2}",
    )
)


def _parse_excepted(text: str) -> IpNetwork:
    try:
        return parse_exact_network(text)
    except ValueError as error:
        raise ValueError(f'invalid entry "{text}" in ipMasqExcept: {error}') from None


_Excepted = Annotated[IpNetwork, parsed_by(_parse_excepted)]


class RuntimeGateway(Model):
    """The part of `runtimeConfig` that the runtime passes for the capability `gatewayPriority`.

    Attributes:
        gateway_priority: Priority of this attachment, instead of `gatewayPriority` of the configuration.
            Without it `args.cni.gatewayPriority` counts.
    """

    gateway_priority: Priority | None = None


class InterfaceConf(NetConf):
    """A configuration of a plugin that calls IPAM. `plugin` is the plugin's own name.

    Attributes:
        gateway_priority: Of several networks of a container, the one with the highest priority has the
            default route. A network without the key has priority 0.
        runtime_config: What the runtime adds for capabilities.
    """

    plugin: ClassVar[str] = ""
    gateway_priority: Priority | None = None
    runtime_config: RuntimeGateway = Field(default_factory=RuntimeGateway)

    @property
    def attachment_priority(self) -> int | None:
        """The priority of the attachment's default routes, None without one. Raise CniError 7."""
        given = self.runtime_config.gateway_priority
        for key, value in self.args.cni.items() if given is None else ():
            if key.lower() == "gatewaypriority" and value is not None:
                if type(value) is not int or not PRIORITY_MIN <= value <= PRIORITY_MAX:
                    bounds = f"a number, {PRIORITY_MIN} to {PRIORITY_MAX}"
                    raise wrong_type("args.cni.gatewayPriority", bounds, value, Code.INVALID_CONFIG)
                given = value
        return self.gateway_priority if given is None else given

    @model_validator(mode="after")
    def _refuse_itself_as_ipam(self) -> Self:
        # It would call itself without end.
        if self.plugin and self.ipam.type == self.plugin:
            raise ValueError(f'"ipam.type" is "{self.plugin}", which gives no addresses')
        return self


class MasqueradeConf(InterfaceConf):
    """A configuration with `ipMasq` and `ipMasqBackend`.

    Attributes:
        ip_masq: Masquerade what containers send outside their subnet.
        ip_masq_backend: `"iptables"` or `"nftables"`. The default is iptables where it works, else nftables.
        ip_masq_families: Masquerade addresses of these families only: `["ipv4"]`, `["ipv6"]`. The default is
            both.
        ip_masq_except: Networks and addresses to which containers keep their own address: `["10.0.0.0/8"]`.
    """

    ip_masq: Bool = False
    ip_masq_backend: Str | None = None
    ip_masq_families: tuple[Str, ...] | None = None
    ip_masq_except: tuple[_Excepted, ...] = ()

    @property
    def has_masquerade(self) -> bool:
        """Whether containers are masqueraded; a container without addresses never is."""
        return self.ip_masq and bool(self.ipam.type)

    @property
    def masqueraded_versions(self) -> tuple[int, ...]:
        """The IP versions that are masqueraded if any is."""
        given = FAMILIES if self.ip_masq_families is None else map(str.lower, self.ip_masq_families)
        return tuple(sorted(FAMILIES[each] for each in given))

    @model_validator(mode="after")
    def _check_families(self) -> Self:
        given = self.ip_masq_families
        if given is not None and (not given or any(each.lower() not in FAMILIES for each in given)):
            raise ValueError(
                '"ipMasqFamilies" must name "ipv4" or "ipv6" or both; "ipMasq": false is for none'
            )
        return self


class ParentConf(InterfaceConf):
    """A configuration of a link that is made on top of another one, its master.

    Attributes:
        master: Name of the link below. The default is the link of the default route.
        link_in_container: Look for the master in the container's namespace, not on the host.
        mtu: MTU of the container's link, at most that of the master. 0 takes that of the master.
    """

    master: Str = ""
    link_in_container: Bool = False
    mtu: Mtu = 0


class RuntimeMac(RuntimeGateway):
    """The parts of `runtimeConfig` that the runtime passes for the capabilities `mac` and `gatewayPriority`.

    Attributes:
        gateway_priority: Priority of this attachment, instead of `gatewayPriority` of the configuration.
            Without it `args.cni.gatewayPriority` counts.
        mac: MAC address of the container's end. Without it `args.cni.mac` counts, then `MAC` in CNI_ARGS.
    """

    mac: Str = ""


class MacConf(NetConf):
    """A configuration whose container end can have a requested MAC address.

    Attributes:
        runtime_config: What the runtime adds for capabilities.
    """

    runtime_config: RuntimeMac = Field(default_factory=RuntimeMac)

    def mac_from(
        self, cni_args: dict[str, str], default: str = "", doing: str = "failed to make veth pair"
    ) -> str:
        """Return the requested MAC address, in lower case with colons; "" for a random one.

        `runtimeConfig.mac` has precedence over `args.cni.mac`, that over MAC in CNI_ARGS, and that over
        `default`. Raise CniError 7, whose message starts with `doing` for a text that is no MAC address.
        """
        in_args: Any = ""
        for key, value in self.args.cni.items():
            in_args = (value or "") if key.lower() == "mac" else in_args
        if not isinstance(in_args, str):
            raise wrong_type("args.cni.mac", "a string", in_args, Code.INVALID_CONFIG)
        given = self.runtime_config.mac or in_args or cni_args.get("MAC", "") or default
        return parse_mac(given, doing) if given else ""


def is_link_name(text: str) -> bool:
    """Return whether the kernel accepts a text as the name of a new link."""
    return bool(_LINK_NAME.fullmatch(text)) and len(text.encode()) <= IFNAME_BYTES


def parse_mac(text: str, doing: str = "failed to make veth pair") -> str:
    """Parse "02:11:22:33:44:55", "02-11-..." or "0211.2233.4455".

    Raise CniError 7, whose message starts with `doing`.
    """
    form = next((form for form in _MAC_FORMS if form.fullmatch(text)), None)
    if form is None:
        raise CniError(
            Code.INVALID_CONFIG,
            f"{doing}: address {text}: invalid MAC address",
            "it is six octets, as 02:11:22:33:44:55",
        )
    octets = bytes.fromhex(re.sub("[-:.]", "", text))
    if octets[0] & 1 or not any(octets):
        raise CniError(
            Code.INVALID_CONFIG,
            f"{doing}: cannot assign requested address",
            f"{text} is no address that a single link can have",
        )
    return octets.hex(":")
