"""The configuration of static, validated; the error texts begin as the Go plugin's do. Pure."""

from typing import Annotated

from pydantic import Field

from cni.addresses import parse_cidr
from cni.conf import Args, DnsConf, IpamConf, Model, parsed_by
from cni.convert import OptionalAddress, RouteJson
from cni.ipam.rules import RequiresIpam, parse_gateway
from cni.result import Ip, IpInterface


def _address(text: str, rule: str) -> IpInterface:
    try:
        return parse_cidr(text)
    except ValueError:
        raise ValueError(f"{rule} in CIDR notation, got: '{text}'") from None


_ADDRESS = parsed_by(lambda text: _address(text, "the 'address' field is expected to be"))
_REQUESTED = parsed_by(lambda text: _address(text, "an entry in the 'ips' field is NOT"))


class AddressConf(Model):
    """One element of `ipam.addresses`.

    Attributes:
        address: Address with its prefix length, `"10.10.0.1/24"`. Required.
        gateway: Address of the gateway.
    """

    address: Annotated[IpInterface, _ADDRESS] = Field(default="", validate_default=True)
    gateway: OptionalAddress = None


class StaticIpam(IpamConf):
    """The `ipam` object.

    Attributes:
        addresses: Addresses of the container's interface.
        routes: Routes of the container, passed on unchanged.
        dns: DNS settings of the result.
    """

    addresses: tuple[AddressConf, ...] = ()
    routes: tuple[RouteJson, ...] = ()
    dns: DnsConf = Field(default_factory=DnsConf)


class RequestedIps(Model):
    """The addresses in `args.cni` and in `runtimeConfig` (capability `ips`).

    Attributes:
        ips: Addresses with prefix length, which replace those of `ipam.addresses` and of CNI_ARGS.
    """

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

        `runtimeConfig.ips` replaces all others, else `args.cni.ips` does. GATEWAY is for the addresses of IP
        only, as in the Go plugin. The last gateway within the subnet of an address counts.
        """
        texts = {key: value.split(",") for key, value in cni_args.items() if value}
        ips = [_address(each.strip(), "the 'ip' field is expected to be") for each in texts.get("IP", ())]
        gateways = [parse_gateway(each) for each in reversed(texts.get("GATEWAY", ()))]
        listed = [Ip(each.address, each.gateway) for each in self.ipam.addresses]
        listed += [Ip(each, next((gw for gw in gateways if gw in each.network), None)) for each in ips]
        return tuple(map(Ip, self.runtime_config.ips or self.args.cni.ips)) or tuple(listed)
