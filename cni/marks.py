"""The aliases that name the owners of host ends; pure.

A container chooses what its own links show, not the alias of the end that is on the host.
"""

from __future__ import annotations

import hashlib

from cni.request import Attachment

# What the aliases of all links that this suite has made start with.
ALIAS = "pycni:"
_PART = 80


def alias_prefix(network: str) -> str:
    """Return how the alias of every host end of a network starts."""
    return f"{ALIAS}{_part(network)}:"


def alias(network: str, attachment: Attachment) -> str:
    """Return the host end's alias, which names its owner; the kernel takes 255 bytes."""
    return f"{alias_prefix(network)}{_part(attachment.container_id)}:{attachment.ifname}"


def attachment_of(alias: str, network: str) -> Attachment | None:
    """Read whose host end it is by its alias; a long container ID is its hash. None for another network's."""
    prefix = alias_prefix(network)
    container_id, separator, ifname = alias.removeprefix(prefix).rpartition(":")
    return Attachment(container_id, ifname) if alias.startswith(prefix) and separator else None


def may_be_hashed(attachment: Attachment) -> bool:
    """Return whether an attachment that was read from an alias may have the hash of its container ID."""
    return len(attachment.container_id) == hashlib.sha256().digest_size * 2


def _part(text: str) -> str:
    return text if len(text) <= _PART else hashlib.sha256(text.encode()).hexdigest()
