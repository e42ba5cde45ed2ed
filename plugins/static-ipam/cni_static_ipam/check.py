"""CHECK: compare the gateways of prevResult with those that ADD would return now."""

from cni.operations import properties
from cni.operations.properties import Property
from cni.request import Request
from cni_static_ipam.add import add
from cni_static_ipam.conf import StaticConf


def check(conf: StaticConf, request: Request) -> None:
    """Raise CniError 104 if prevResult has one of the addresses with another gateway."""
    listed, ips = [], add(conf, request).ips
    previous = request.required_prev_result().ips
    for address, wanted, _ in ips:
        found = [each.gateway for each in previous if each.address.ip == address.ip]
        actual = wanted if wanted in found or not (wanted and found) else found[0]
        message = f"Failed to match addr {address.ip} on interface {request.ifname}"
        remedy = f"Attach the container again: its gateway is {actual or 'missing'}, expected {wanted}."
        listed.append(Property(f"gateway of {address.ip}", actual, wanted, message, remedy=remedy))
    properties.check(listed, prefix="static: ")
