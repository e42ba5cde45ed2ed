"""The configuration of dhcp, validated; the error texts begin as the Go plugin's do. Pure."""

from typing import Annotated

from pydantic import Field

from cni.conf import Bool, IpamConf, Model, Str, Unsigned, parsed_by
from cni.ipam.rules import RequiresIpam

_OPTION_NAMES = {
    "dhcp-client-identifier": 61,
    "subnet-mask": 1,
    "routers": 3,
    "host-name": 12,
    "user-class": 77,
    "vendor-class-identifier": 60,
}
# The protocol itself sets these: padding, address, lease time, overload, type, server, end.
_OF_THE_PROTOCOL = {0, 50, 52, 53, 54, 55, 255}
_LONGEST_VALUE = 255


def option_code(text: str) -> int:
    """Return the code of an option, which a name or a number stands for. Raise ValueError."""
    code = _OPTION_NAMES.get(text)
    if code is None and text.isascii() and text.isdigit() and len(text) <= 3:
        code = int(text)
    if code is None or code > 255:
        names = ", ".join(_OPTION_NAMES)
        raise ValueError(f'Can not parse option "{text}": it is none of {names} and no number up to 255')
    if code in _OF_THE_PROTOCOL:
        raise ValueError(f'Can not parse option "{text}": the protocol itself sets option {code}')
    return code


def _value(text: str) -> str:
    if len(text.encode(errors="replace")) > _LONGEST_VALUE:
        raise ValueError(f"value too long for option: it has more than {_LONGEST_VALUE} bytes")
    return text


def _option(text: str) -> str:
    option_code(text)
    return text


Option = Annotated[str, parsed_by(_option)]


class ProvideConf(Model):
    """One element of `ipam.provide`.

    Attributes:
        option: Name or number of the option.
        value: Value of the option as text.
        from_arg: Key of CNI_ARGS whose value replaces `value`.
    """

    option: Option
    value: Annotated[str, parsed_by(_value)] = ""
    from_arg: Str = ""


class RequestConf(Model):
    """One element of `ipam.request`.

    Attributes:
        option: Name or number of the option.
        skip_default: Whether only the options of `ipam.request` are asked for.
    """

    option: Option
    skip_default: Bool = False


class DhcpIpam(IpamConf):
    """The `ipam` object.

    Attributes:
        daemon_socket_path: Socket of the Go plugin's daemon. It has no effect, as there is no daemon.
        provide: Options that the plugin sends to the server.
        request: Options that the plugin asks the server for, beside the default ones.
        priority: Metric of all routes.
        timeout_seconds: Greatest time in seconds that ADD waits for a lease.
    """

    daemon_socket_path: Str = ""
    provide: tuple[ProvideConf, ...] = ()
    request: tuple[RequestConf, ...] = ()
    priority: Unsigned = 0
    timeout_seconds: Annotated[int, Field(strict=True, ge=1, le=300)] = 30


class DhcpConf(RequiresIpam):
    """The part of the network configuration that dhcp reads."""

    ipam: DhcpIpam = Field(default_factory=DhcpIpam)
