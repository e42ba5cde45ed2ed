"""The aliases that name the owners of host ends; pure.

A container can set the alias of its own links, but not of the end on the host.
"""

from __future__ import annotations

import hashlib

from cni.request import Attachment

# The prefix of the aliases of all links that this suite creates.
ALIAS = "pycni:"
_PART = 80


def alias_prefix(network: str) -> str:
    """Return the prefix of the aliases of a network's host ends."""
    return f"{ALIAS}{_part(network)}:"


def alias(network: str, attachment: Attachment) -> str:
    """Return the alias of the host end, which names its owner. The kernel takes 255 bytes."""
    return f"{alias_prefix(network)}{_part(attachment.container_id)}:{attachment.ifname}"


def attachment_of(alias: str, network: str) -> Attachment | None:
    """Return the attachment in an alias, None for another network. A long container ID is its hash."""
    prefix = alias_prefix(network)
    container_id, separator, ifname = alias.removeprefix(prefix).rpartition(":")
    return Attachment(container_id, ifname) if alias.startswith(prefix) and separator else None


def may_be_hashed(attachment: Attachment) -> bool:
    """Return whether the container ID of an attachment from an alias may be a hash."""
    return len(attachment.container_id) == hashlib.sha256().digest_size * 2


def _part(text: str) -> str:
    return text if len(text) <= _PART else hashlib.sha256(text.encode()).hexdigest()
