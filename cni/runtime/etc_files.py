"""The texts of /etc/resolv.conf and /etc/hosts for COMMAND of `pycni run`. Pure."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.addresses import parse_ip
from cni.errors import CniError, Code

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_HEAD = "# Written by pycni run for container {}.\n"
_GATEWAY = "host-gateway"
# Docker's sign for no domains at all.
_NO_SEARCH = "."
_LOCALHOST = "localhost"


class Resolver(NamedTuple):
    """The content of a resolv.conf. An empty part of the options of `pycni run` leaves it to the networks."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return not (self.servers or self.search or self.options)


def check(asked: Resolver) -> None:
    """Raise CniError 7 for values that cannot be in the file."""
    for each in asked.servers:
        try:
            ip_address(each)
        except ValueError as error:
            raise _wrong("--dns", f'"{each}" is no IP address') from error
    for option, values in (("--dns-search", asked.search), ("--dns-option", asked.options)):
        for each in values:
            if not each or each.split() != [each]:
                raise _wrong(option, f'"{each}" must be one word')


def parse_resolv_conf(text: str) -> Resolver:
    """Return the content of a resolv.conf, without the lines that resolv.conf(5) does not have."""
    servers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        key, *values = line.split() or [""]
        if key == "nameserver":
            servers += values[:1]
        elif key in {"search", "domain"}:
            search = values
        elif key == "options":
            options += values
    return Resolver(tuple(servers), tuple(search), tuple(options))


def of_results(results: Iterable[Mapping[str, Any]]) -> Resolver:
    """Return the resolver that the results of networks name, those of the first network first."""
    parts = [each["dns"] for each in results if isinstance(each.get("dns"), dict)]
    servers = [str(value) for each in parts for value in each.get("nameservers") or ()]
    search = [str(each["domain"]) for each in parts if each.get("domain")]
    search += [str(value) for each in parts for value in each.get("search") or ()]
    options = [str(value) for each in parts for value in each.get("options") or ()]
    return Resolver(_unique(servers), _unique(search), _unique(options))


def without_loopback(host: Resolver) -> Resolver:
    """Return the host's part without servers that only the host itself can ask."""
    return host._replace(servers=tuple(each for each in host.servers if not _is_loopback(each)))


def join(asked: Resolver, networks: Resolver, host: Resolver) -> Resolver:
    """Return the resolver of a container.

    The options of the command replace the values of networks, and these come before the host's. The host's
    servers are asked only if no network has one.
    """
    search = asked.search or _unique([*networks.search, *host.search])
    return Resolver(
        _unique(asked.servers or networks.servers or host.servers),
        tuple(each for each in search if each != _NO_SEARCH),
        asked.options or _unique([*networks.options, *host.options]),
    )


def show_resolv_conf(name: str, resolver: Resolver) -> str:
    """Return the text of a resolv.conf."""
    lines = [f"nameserver {each}\n" for each in resolver.servers]
    lines += [f"search {' '.join(resolver.search)}\n"] if resolver.search else []
    lines += [f"options {' '.join(resolver.options)}\n"] if resolver.options else []
    return _HEAD.format(name) + "".join(lines)


def parse_added(texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return names and addresses of --add-host: "NAME:IP" or "NAME=IP". Raise CniError 7.

    "host-gateway" is an address, too.
    """
    pairs = []
    for text in texts:
        separator = "=" if "=" in text else ":"
        name, _, address = text.partition(separator)
        address = address.removeprefix("[").removesuffix("]")
        try:
            shown = address if address == _GATEWAY else str(parse_ip(address))
        except ValueError as error:
            raise _wrong("--add-host", f'"{text}" is no NAME:IP') from error
        if name.split() != [name] or "#" in name:
            raise _wrong("--add-host", f'"{text}" has no name')
        pairs.append((name, shown))
    return pairs


def show_hosts(
    name: str,
    names: Sequence[str],
    results: Sequence[Mapping[str, Any]],
    added: Sequence[tuple[str, str]],
    host: str,
) -> str:
    """Return the text of a hosts file: the added names, the container's own, and the host's file.

    A program takes the first line that has a name. Raise CniError 7 if a name needs a gateway, and no network
    has one.
    """
    listed = [each for result in results for each in result.get("ips") or () if isinstance(each, dict)]
    lines = []
    for each, address in added:
        lines.append(f"{_gateway(listed) if address == _GATEWAY else address}\t{each}\n")
    own = " ".join(_unique(names))
    lines += [f"{str(each.get('address')).partition('/')[0]}\t{own}\n" for each in listed]
    if not any(_LOCALHOST in line.partition("#")[0].split()[1:] for line in host.splitlines()):
        lines += [f"127.0.0.1\t{_LOCALHOST}\n", f"::1\t{_LOCALHOST}\n"]
    return _HEAD.format(name) + "".join(lines) + host


def _gateway(ips: Iterable[Mapping[str, Any]]) -> str:
    for each in ips:
        if each.get("gateway"):
            return str(each["gateway"])
    raise CniError(
        Code.INVALID_CONFIG,
        f"--add-host: no network of the container has a gateway for {_GATEWAY}",
        "Give an address.",
    )


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))


def _wrong(option: str, reason: str) -> CniError:
    return CniError(Code.INVALID_CONFIG, f"invalid value for {option}: {reason}")
