"""The names that a network's containers have, as values. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 1035, section 2.3.4.
_LONGEST_LABEL, _LONGEST_NAME = 63, 253
# RFC 1123, section 2.1; with "_", which containers' names may have.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?")


class Key(NamedTuple):
    """The attachment that a record is of."""

    network: str
    container_id: str
    ifname: str


class Settings(NamedTuple):
    """The settings of a network: those of its newest record count.

    `gateways` are the host's addresses that the server answers at. `upstreams` are the servers that other
    names are asked of, None for those of the host's resolv.conf. `hosts` is the path of a file in the format
    of hosts(5) whose names belong to the network, too; "" for none.
    """

    domain: str = ""
    gateways: tuple[str, ...] = ()
    subnets: tuple[str, ...] = ()
    is_internal: bool = False
    upstreams: tuple[str, ...] | None = None
    hosts: str = ""
    pid_file: str = ""


class Record(NamedTuple):
    """The names and addresses of an attachment.

    The first of `names` is the container's own, which reverse look-ups answer. `since_ns` orders the
    attachments of a container. `owner` is the server's key, that of the caller's user and namespaces.
    `upstreams` are the container's own, in place of those of its networks; () for none.
    """

    key: Key
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    settings: Settings
    since_ns: int = 0
    netns: str = ""
    owner: str = ""
    upstreams: tuple[str, ...] = ()


def normal_name(text: str) -> str:
    """Return a name in lower case. Raise ValueError for one that no query can have."""
    name = text.lower()
    labels = name.split(".")
    if len(name) > _LONGEST_NAME or not all(
        _LABEL.fullmatch(each) and len(each) <= _LONGEST_LABEL for each in labels
    ):
        raise ValueError(
            f"{text!a} cannot be a name: a name has letters, digits, hyphens and underscores, "
            f"at most {_LONGEST_LABEL} between two dots"
        )
    return name
