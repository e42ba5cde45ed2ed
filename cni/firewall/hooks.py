"""Whether a chain of another program drops what none of its rules accepts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.firewall import nft
from cni.kernel.attributes import attributes, each_attribute, shown_text

if TYPE_CHECKING:
    from cni.kernel.filtering import Hooked

# <linux/netfilter/nf_tables.h>
_EXPRESSIONS, _NAME, _DATA = 4, 1, 2
_VERDICT_DATA, _VERDICT, _VERDICT_CODE = 2, 2, 1
_DROP = 0
# What may stand before the verdict of a rule that all packets match.
_MATCHING_ALL = {"counter", "log"}


def drops_rest(chain: Hooked) -> bool:
    """Return whether a chain drops what no rule of it accepts: by its policy, or by its last rule."""
    if chain.has_drop_policy:
        return True
    listed = nft.list_rules(chain.family, chain.table, chain.chain) if chain.rules else []
    return bool(listed) and _drops_all(listed[-1])


def _drops_all(rule: nft.Rule) -> bool:
    packed = each_attribute(attributes(rule.raw).get(_EXPRESSIONS, b""))
    expressions = [attributes(each) for _, each in packed]
    names = [shown_text(each.get(_NAME, b"")) for each in expressions]
    if not names or not {*names[:-1]} <= _MATCHING_ALL:
        return False
    return names[-1] == "reject" or (names[-1] == "immediate" and _verdict(expressions[-1]) == _DROP)


def _verdict(expression: dict[int, bytes]) -> int | None:
    data = attributes(expression.get(_DATA, b""))
    code = attributes(attributes(data.get(_VERDICT_DATA, b"")).get(_VERDICT, b"")).get(_VERDICT_CODE)
    return None if code is None else int.from_bytes(code, "big")
