"""The comment by which a rule or an element names its owner.

Its form is that of the Go plugins' nftables masquerading, so that a ruleset reads the same for both suites:
`<16 hex digits>-<16 hex digits>, net: NAME, if: IFNAME, id: CONTAINER`. The first digits stand for the
network, the second for the attachment. Only the digits are compared, as nft accepts 128 bytes of comment at
most.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.firewall.intents import Owner
    from cni.request import Attachment

COMMENT_BYTES = 128
_TAG_LENGTH = 33
_COMMENT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}, net: (?P<net>.*), if: (?P<ifname>.*), id: (?P<id>.*)")


def network_tag(network: str) -> str:
    """Return the 16 hex digits and the dash with which all comments of a network begin."""
    return _digits(network) + "-"


def tag(owner: Owner) -> str:
    """Return the 33 characters with which all comments of an owner begin."""
    return _tag(*owner)


@lru_cache(maxsize=64)
def _tag(network: str, container_id: str, ifname: str) -> str:
    return network_tag(network) + _digits(f"{ifname}:{container_id}")


def tags(network: str, attachments: Collection[Attachment]) -> frozenset[str]:
    """Return the tags of attachments of a network."""
    return frozenset(_tag(network, each.container_id, each.ifname) for each in attachments)


def tag_of(comment: str) -> str:
    """Return the tag with which a comment begins."""
    return comment[:_TAG_LENGTH]


def is_of_container(comment: str, container_id: str) -> bool:
    """Return whether a comment names a container. Of a comment that was cut, the beginning is compared."""
    match = _COMMENT.fullmatch(comment)
    if match is None:
        return False
    was_cut = len(comment.encode()) >= COMMENT_BYTES
    return container_id.startswith(match["id"]) if was_cut else container_id == match["id"]


def comment(owner: Owner) -> str:
    """Return the comment for an owner's rules, cut to the length that nft accepts."""
    text = f"{tag(owner)}, net: {owner.network}, if: {owner.ifname}, id: {owner.container_id}"
    return text.replace('"', "").encode()[:COMMENT_BYTES].decode(errors="ignore")


def shown(text: str) -> str:
    """Return the owner that a comment names, in words. A container ID that was cut is shown as it is."""
    match = _COMMENT.fullmatch(text)
    if match is None:
        return f'"{text}"' if text else "a rule without a comment"
    return f'container "{match["id"]}" (interface "{match["ifname"]}" on network "{match["net"]}")'


def parse(text: str) -> tuple[str, str, str] | None:
    """Return the fields of the owner that a comment names. A container ID that was cut remains so."""
    match = _COMMENT.fullmatch(text)
    return (match["net"], match["id"], match["ifname"]) if match else None


@lru_cache(maxsize=64)
def _digits(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()[:16]
