"""The configuration of static, validated; the error texts begin as the Go plugin's do. Pure."""

from typing import Annotated

from pydantic import BeforeValidator, Field

from cni.addresses import parse_cidr, parse_ip
from cni.conf import Args, DnsConf, IpamConf, Model
from cni.convert import OptionalAddress, RouteJson
from cni.ipam.rules import RequiresIpam
from cni.result import Ip, IpAddress, IpInterface


def _address(value: object, rule: str) -> IpInterface:
    text = value if isinstance(value, str) else ""
    try:
        return parse_cidr(text)
    except ValueError:
        raise ValueError(f"{rule} in CIDR notation, got: '{text}'") from None


def _gateway(text: str) -> IpAddress:
    try:
        return parse_ip(text.strip())
    except ValueError:
        raise ValueError(f"invalid gateway address: {text}") from None


_ADDRESS = BeforeValidator(lambda value: _address(value, "the 'address' field is expected to be"))
_REQUESTED = BeforeValidator(lambda value: _address(value, "an entry in the 'ips' field is NOT"))


class AddressConf(Model):
    """One element of `ipam.addresses`: an address with its prefix, and its gateway."""

    address: Annotated[IpInterface, _ADDRESS] = Field(default="", validate_default=True)
    gateway: OptionalAddress = None


class StaticIpam(IpamConf):
    """The `ipam` object."""

    addresses: tuple[AddressConf, ...] = ()
    routes: tuple[RouteJson, ...] = ()
    dns: DnsConf = Field(default_factory=DnsConf)


class RequestedIps(Model):
    """The addresses in `args.cni` and in `runtimeConfig` (capability `ips`)."""

    ips: tuple[Annotated[IpInterface, _REQUESTED], ...] = ()


class StaticArgs(Args):
    """The `args` object."""

    cni: RequestedIps = Field(default_factory=RequestedIps)  # type: ignore[assignment]  # typed keys


class StaticConf(RequiresIpam):
    """The part of the network configuration that static reads."""

    ipam: StaticIpam = Field(default_factory=StaticIpam)
    args: StaticArgs = Field(default_factory=StaticArgs)
    runtime_config: RequestedIps = Field(default_factory=RequestedIps)

    def list_ips(self, cni_args: dict[str, str]) -> tuple[Ip, ...]:
        """Return all addresses. Raise ValueError if IP or GATEWAY of CNI_ARGS is malformed.

        `runtimeConfig.ips` replaces all others, else `args.cni.ips` does. GATEWAY applies to the addresses
        of IP only, as in the Go plugin. The last gateway within the subnet of an address counts.
        """
        texts = {key: value.split(",") for key, value in cni_args.items() if value}
        ips = [_address(each.strip(), "the 'ip' field is expected to be") for each in texts.get("IP", ())]
        gateways = [_gateway(each) for each in reversed(texts.get("GATEWAY", ()))]
        listed = [Ip(each.address, each.gateway) for each in self.ipam.addresses]
        listed += [Ip(each, next((gw for gw in gateways if gw in each.network), None)) for each in ips]
        return tuple(map(Ip, self.runtime_config.ips or self.args.cni.ips)) or tuple(listed)
