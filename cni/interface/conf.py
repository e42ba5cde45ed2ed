"""Configuration keys that several interface plugins have; pure.

A plugin's model derives from the classes whose keys it has, and the docstrings here describe these keys.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from cni.conf import Bool, Model, Mtu, NetConf, Str, wrong_type
from cni.errors import CniError, Code

IFNAME_BYTES = 15
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


class InterfaceConf(NetConf):
    """A configuration of a plugin that calls IPAM. `plugin` is the plugin's own name."""

    plugin: ClassVar[str] = ""

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
    """

    ip_masq: Bool = False
    ip_masq_backend: Str | None = None

    @property
    def has_masquerade(self) -> bool:
        """Whether containers are masqueraded; a container without addresses never is."""
        return self.ip_masq and bool(self.ipam.type)


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


class RuntimeMac(Model):
    """The part of `runtimeConfig` that the runtime passes for the capability `mac`.

    Attributes:
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
