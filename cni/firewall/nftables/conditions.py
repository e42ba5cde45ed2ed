"""Validate user-supplied nft match expressions: reject anything that is not a match."""

from __future__ import annotations

import re

from cni.errors import CniError, Code

_ALLOWED = re.compile(r'[\w.:/,!=<>&|^~@{}()*"+\- ]+', re.ASCII)
# These words make a statement of a match, or end the rule.
_STATEMENTS = {
    "accept", "add", "comment", "continue", "counter", "create", "define", "delete", "destroy", "dnat",
    "drop", "dup", "flow", "flush", "fwd", "goto", "include", "insert", "jump", "limit", "list", "log",
    "masquerade", "meter", "mirror", "monitor", "notrack", "queue", "quota", "redefine", "redirect",
    "reject", "rename", "replace", "reset", "return", "set", "snat", "synproxy", "tproxy", "undefine",
    "update", "vmap", "xt",
}  # fmt: skip


def check(conditions: tuple[str, ...], field: str) -> None:
    """Raise CniError 7, naming the token, unless these can only be matches of one rule."""
    for token in conditions:
        words = re.findall(r"\w+", re.sub(r'"[^"]*"', "", token), re.ASCII)
        if not _ALLOWED.fullmatch(token) or token.count('"') % 2 or _STATEMENTS & set(words):
            _refuse(field, token, f"{field} accepts the match expressions of one nftables rule, nothing else")
    depth = 0
    for char in re.sub(r'"[^"]*"', "", " ".join(conditions)):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if depth not in {0, 1}:
            break
    if depth:
        _refuse(field, " ".join(conditions), "braces must come in pairs, and must not be nested")


def _refuse(field: str, token: str, why: str) -> None:
    raise CniError(Code.INVALID_CONFIG, f'invalid token {token!r} in "{field}"', why)
