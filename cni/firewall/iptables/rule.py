"""A rule of iptables as a value, and as the line that `iptables -S` prints. Pure.

`netlink` has the same value as expressions of nf_tables. An intent's rendering is made of these values.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cni.firewall.intents import Owner

# A match as its words: ("-s", "10.1.0.0/16"), ("!", "-d", ...), ("-m", "tcp", "--dport", "80").
Match = tuple[str, ...]

# As `iptables -S` quotes; shlex takes 0.03 ms for a rule.
_WORD, _ESCAPE = re.compile(r'"((?:\\.|[^"\\])*)"|(\S+)'), re.compile(r"\\(.)")
_PLAIN = re.compile(r"[^\s\"'\\]+")
_SHORT_OPTION = re.compile(r"-[a-z]")
# The words before the text of a comment.
COMMENT = ("-m", "comment", "--comment")


class Rule(NamedTuple):
    """A rule of a chain. `target` has the words behind "-j", () if the rule has no target."""

    table: str
    chain: str
    matches: tuple[Match, ...]
    target: tuple[str, ...]

    @property
    def comment(self) -> str:
        """The text of the rule's comment, "" without one."""
        return next((match[-1] for match in self.matches if match[:3] == COMMENT), "")

    @property
    def leads_to(self) -> str:
        """The chain or the target that the rule jumps to, "" without one."""
        return self.target[0] if self.target else ""

    @property
    def spec(self) -> str:
        """The rule without its chain, as `iptables -S` prints it."""
        words = [word for match in self.matches for word in match]
        return " ".join(map(_quote, [*words, *(("-j", *self.target) if self.target else ())]))

    @property
    def line(self) -> str:
        """The rule as `iptables -S` prints it."""
        return f"-A {self.chain} {self.spec}"

    def as_command(self, command: str) -> str:
        """Return the line of a transaction: "-A", "-D" or "-C", or "-I" to put the rule first."""
        position = " 1" if command == "-I" else ""
        return f"{command} {self.chain}{position} {self.spec}"


def parse_rule(table: str, line: str) -> Rule | None:
    """Read one line of `iptables -S`. Return None if it is no rule (a chain, a policy)."""
    words = line.split(" ", 2)
    if len(words) != 3 or words[0] != "-A":
        return None
    found = [_ESCAPE.sub(r"\1", quoted) or plain for quoted, plain in _WORD.findall(words[2])]
    matches = group_words(found)
    has_target = bool(matches) and matches[-1][0] == "-j"
    return Rule(table, words[1], matches[: -1 if has_target else None], matches[-1][1:] if has_target else ())


def group_words(words: Sequence[str]) -> tuple[Match, ...]:
    """Split the words of a rule before each match, and before "-j"."""
    groups: list[list[str]] = []
    for at, word in enumerate(words):
        is_negation = word == "!" and bool(_SHORT_OPTION.fullmatch("".join(words[at + 1 : at + 2])))
        is_option = bool(_SHORT_OPTION.fullmatch(word)) and words[at - 1 : at] not in (["!"], ["--comment"])
        if is_negation or is_option or not groups:
            groups.append([])
        groups[-1].append(word)
    return tuple(map(tuple, groups))


def comment_match(text: str) -> Match:
    """Return the match that holds a comment."""
    return *COMMENT, text


def _quote(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"([\"'\\])", r"\\\1", text)
    return f'"{escaped}"'


class Jump(NamedTuple):
    """The rule of another chain that leads to a shared chain; `first` puts it before the rules that exist."""

    rule: Rule
    first: bool = False


class Shared(NamedTuple):
    """A chain that many attachments use, its rules and the jumps to it.

    The name of a chain that `is_named_by_content` is a hash of its rule, so that only its use is compared.
    """

    chain: str
    rules: tuple[Rule, ...]
    jumps: tuple[Jump, ...]
    is_named_by_content: bool = False

    @property
    def needed(self) -> tuple[Rule, ...]:
        """Its rules, and those that lead to it."""
        return *self.rules, *(jump.rule for jump in self.jumps)


class Wanted(NamedTuple):
    """The rules and chains that an intent needs in one table and IP version.

    `chain` is the owner's own chain. It has `rules`, then rules of other links of the container, whose chain
    has the same name, then `last`. `entries` are rules of other chains that lead to it. The `shared` chains
    must exist before it.
    """

    chain: str
    rules: tuple[Rule, ...]
    entries: tuple[Rule, ...]
    last: tuple[Rule, ...] = ()
    shared: tuple[Shared, ...] = ()

    @property
    def made(self) -> tuple[Rule, ...]:
        """The rules of a chain that does not exist yet, and those that lead to it."""
        return (*self.rules, *self.last, *self.entries)

    @property
    def needed(self) -> tuple[Rule, ...]:
        """The rules that the shared chains must have, and those that lead to them."""
        return tuple(rule for each in self.shared for rule in each.needed)


class Own(NamedTuple):
    """A chain that an owner may have, and the chain that leads to it."""

    chain: str
    parent: str


class Rendering(NamedTuple):
    """How iptables renders one kind of intent, in one table.

    `wanted` renders an intent for an IP version. `own` lists the chains that an owner may have: first the
    chain of `wanted`, then those of old releases. `path` has the chains on the way to it, a built-in one
    first. `label` begins what `differences` reports.
    """

    table: str
    label: str
    path: tuple[str, ...]
    wanted: Callable[[Any, int], Wanted]
    own: Callable[[Owner], Sequence[Own]]
