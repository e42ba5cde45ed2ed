"""How a rule or an element tells whose it is: by its comment.

The form is that of the Go plugins' nftables masquerading, so that one look at a ruleset reads the same
whichever suite made it: `<16 hex digits>-<16 hex digits>, net: NAME, if: IFNAME, id: CONTAINER`, where the
first digits stand for the network and the second for the attachment. Only the digits are compared, as nft
takes no more than 128 bytes of comment.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import TYPE_CHECKING

from cni.firewall.intents import Owner

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.request import Attachment

COMMENT_BYTES = 128
_TAG_LENGTH = 33
_COMMENT = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}, net: (?P<net>.*), if: (?P<ifname>.*), id: (?P<id>.*)")


def network_tag(network: str) -> str:
    """Give the 16 hex digits and the dash with which all comments of a network begin."""
    return _digits(network) + "-"


def tag(owner: Owner) -> str:
    """Give the 33 characters with which all comments of an owner begin."""
    return network_tag(owner.network) + _digits(f"{owner.ifname}:{owner.container_id}")


def tags(network: str, attachments: Collection[Attachment]) -> frozenset[str]:
    """Give the tags of attachments of a network."""
    return frozenset(tag(Owner(network, each.container_id, each.ifname)) for each in attachments)


def tag_of(comment: str) -> str:
    """Give the tag with which a comment begins."""
    return comment[:_TAG_LENGTH]


def is_of_container(comment: str, container_id: str) -> bool:
    """Tell whether a comment is of an attachment of a container; one cut short need only begin alike."""
    match = _COMMENT.fullmatch(comment)
    if match is None:
        return False
    was_cut = len(comment.encode()) >= COMMENT_BYTES
    return container_id.startswith(match["id"]) if was_cut else container_id == match["id"]


def comment(owner: Owner) -> str:
    """Give the comment for an owner's rules, cut to what nft takes."""
    told = f"{tag(owner)}, net: {owner.network}, if: {owner.ifname}, id: {owner.container_id}".replace(
        '"', ""
    )
    return told.encode()[:COMMENT_BYTES].decode(errors="ignore")


def shown(found: str) -> str:
    """Tell in words whose a comment is; a container ID cut short keeps what is left of it."""
    match = _COMMENT.fullmatch(found)
    if match is None:
        return f'"{found}"' if found else "a rule without a comment"
    return f'container "{match["id"]}" (interface "{match["ifname"]}" on network "{match["net"]}")'


def parse(found: str) -> Owner | None:
    """Read whose a comment is; a container ID cut short keeps what is left of it."""
    match = _COMMENT.fullmatch(found)
    return Owner(match["net"], match["id"], match["ifname"]) if match else None


@lru_cache(maxsize=64)
def _digits(text: str) -> str:
    return hashlib.sha512(text.encode()).hexdigest()[:16]
