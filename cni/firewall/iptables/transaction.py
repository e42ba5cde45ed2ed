"""Transactions on a table of iptables: make an owner's chain and shared chains, and remove them.

The usual transaction that makes a chain expects that the shared chains are right, and that the owner's chain
does not exist. Otherwise the table is read and completed, with `LOCK` held. The Go plugins do not take that
lock, so that a transaction that no longer fits what was read is planned anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, ErrorList
from cni.firewall import nft
from cni.firewall.iptables import legacy, netlink, rules, variants
from cni.firewall.iptables.execute import RefusedError
from cni.firewall.iptables.rule import Rule
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from cni.firewall.iptables.execute import Tool
    from cni.firewall.iptables.rule import Shared, Wanted
    from cni.result import IpAddress

LOCK = Path("/run/pycni/iptables.lock")
# How often other programs may change the ruleset before the program is used instead of netlink.
_NETLINK_TRIES = 5
_MOST_VERIFIED = 16
# How often a transaction is planned anew because other programs change the rules at the same time.
_TRIES = 8
# An ADD that makes a shared chain, where as many gateways are named, looks for those that the host has lost.
_MOST_GATEWAYS = 64

# A table as read: the rules of each chain that exists.
Seen = Mapping[str, Sequence[Rule]]
# Returns whether a rule exists that no listing shows so, as options may be listed in another form.
Has = Callable[[Rule], bool]

# The shared rules that are right in the form in which the kernel reported them.
_verified: set[tuple[int, tuple[Rule, ...], tuple[bytes, ...]]] = set()


class Transaction:
    """Make an owner's chain and the rules that lead to it; `undo` reverts that.

    What `undo` does is known only when the rules have been read, and changes with each new try.
    """

    def __init__(self, tool: Tool, wanted: Wanted, doing: str) -> None:
        self.tool = tool
        self.wanted = wanted
        self.doing = doing
        self._made = wanted.made
        self._inverse: list[Callable[[], object]] = [self._remove]

    def run(self) -> None:
        """Make all that is missing. Raise CniError 101, or 11 if a lock is held for too long.

        The usual transaction expects that the owner's chain does not exist, and that the shared chains are
        right. Netlink makes the chain if it can compare the shared rules, else the program compares them and
        makes the chain.
        """
        if self.tool.is_nf_tables():
            is_done = self._append_by_netlink()
        else:
            is_done = _has_shared_once(self.tool, self.wanted.shared) and self._append_by_program()
        if not is_done:
            self._inverse = []
            with _locked(self.tool):
                retried(self._complete)

    def undo(self) -> None:
        """Revert `run`, as far as it got."""
        errors = ErrorList()
        with _locked(self.tool):
            for step in self._inverse:
                errors.attempt(step)
        errors.raise_any()

    def _remove(self) -> None:
        parents = list(dict.fromkeys(each.chain for each in self.wanted.entries))
        addresses = [each for rule in self._made if (each := rules.find_address(rule))]
        remove_chain(self.tool, self.wanted.chain, parents, addresses)

    def _append_by_netlink(self) -> bool:
        """Compare the shared rules and make the chain. Return False, with nothing done, if they are wrong.

        One form of the shared rules is compared once in a process. Rules with parts that netlink does not
        know are left to the program.
        """
        family = nft.FAMILIES[self.tool.version]
        for _ in range(_NETLINK_TRIES):
            shared = _read_shared(family, self.tool.table, self.wanted.shared)
            if shared is None:
                return False
            form = family, shared.rules, tuple(map(netlink.content, shared.reported))
            if shared.rules and form not in _verified:
                is_right = tuple(map(netlink.read_rule, shared.reported)) == shared.rules
                is_made = not is_right and self._append_by_program()
                if not is_right and not is_made:
                    return False
                if len(_verified) >= _MOST_VERIFIED:
                    _verified.clear()
                _verified.add(form)
                if is_made:
                    return True
            if netlink.make_chain(self.doing, self.wanted.chain, self._made, shared.generation, family):
                return True
            if shared.generation is None or nft.generation() == shared.generation:
                break
        return self._append_by_program()

    def _append_by_program(self) -> bool:
        """Let iptables compare the shared rules and make the chain. Return False if they are not right."""
        try:
            self._apply(append_commands(self.wanted))
        except RefusedError as error:
            if not self.wanted.shared and not error.is_conflict:
                raise
            return False
        return True

    def _complete(self) -> None:
        """Make what is missing, whatever exists already: the owner's chain, a part of the shared chains."""
        seen = self._read()
        shared = self.wanted.shared
        made = missing_chains(seen, shared)
        commands = ensure_shared(seen, shared, self.tool.has)
        commands += ensure_chain(seen, self.wanted, self.tool.has)
        if len(seen.get(rules.GATEWAYS, ())) >= _MOST_GATEWAYS:
            former = former_gateways(seen, addresses_of_host(self.tool.version))
            own = {each.chain for each in shared}
            commands += gateway_removal_commands([rule for rule in former if rule.leads_to not in own])
        self._inverse = [self._remove]
        if self.wanted.chain in seen:
            back = restore_chain(seen, self.wanted, self.tool.has)
            self._inverse = [partial(self.tool.apply, f"restore chain {self.wanted.chain}", back)]
        self._inverse.append(partial(remove_unused, self.tool, made))
        self._apply(commands)

    def _read(self) -> dict[str, Sequence[Rule]]:
        """Read the chains that matter: not those of all containers, unless the owner's chain exists."""
        wanted = self.wanted
        jumps = [jump.rule.chain for each in wanted.shared for jump in each.jumps]
        content = [each.chain for each in wanted.shared if each.rules]
        existing = variants.list_existing(
            self.tool, [*jumps, *content, *(each.chain for each in wanted.shared), wanted.chain]
        )
        listed = [each for each in existing if each in {*jumps, *content, wanted.chain}]
        seen: dict[str, Sequence[Rule]] = {**self.tool.list_chains(listed)}
        led_to = {rule.leads_to for each in jumps for rule in seen.get(each, ())}
        # A jump shows that a chain without rules of its own exists.
        seen = {each: () for each in existing if each in led_to} | seen
        others = [each for each in existing if each not in {*listed, *seen}]
        if wanted.chain in seen:
            others = list(dict.fromkeys([*others, *(each.chain for each in wanted.entries)]))
        return seen | self.tool.list_chains(others)

    def _apply(self, commands: Sequence[str]) -> None:
        try:
            self.tool.apply(self.doing, commands)
        except RefusedError:
            self._inverse = []
            raise


@contextmanager
def _locked(tool: Tool) -> Iterator[None]:
    files.ensure_directory(LOCK.parent)
    with locked(LOCK, tool.wait_s):
        yield


class _SharedRules(NamedTuple):
    """Shared rules that exist as often as they should, and what the kernel `reported` of them.

    `generation` is the ruleset's, None without a rule.
    """

    rules: tuple[Rule, ...]
    reported: tuple[nft.Rule, ...]
    generation: int | None


def _has_shared_once(tool: Tool, shared: Sequence[Shared]) -> bool:
    """Return whether a variant has as many shared rules as it should. Their content is not compared."""
    try:
        if _read_shared(nft.FAMILIES[tool.version], tool.table, shared) is not None:
            return True
        if not legacy.is_loaded(tool.version, tool.table):
            return False
        table = legacy.read(tool.version, tool.table)
    except (CniError, OSError):
        return False
    return all(
        each.chain in table.chains
        and (not each.rules or table.count_rules(each.chain) == len(each.rules))
        and all(table.count_jumps(jump.rule.chain, each.chain) == 1 for jump in each.jumps)
        for each in shared
    )


def _read_shared(family: int, table: str, shared: Sequence[Shared]) -> _SharedRules | None:
    """Read the shared rules in nf_tables. Return None if there are not as many as there should be."""
    if not shared:
        return _SharedRules((), (), None)
    counted = [each for each in shared if each.rules and each.jumps]
    generation, chains = nft.find_chains_now([(family, table, each.chain) for each in counted])
    for each, chain in zip(counted, chains, strict=True):
        if chain is None or chain.use != len(each.rules) + len(each.jumps):
            return None
    compared: list[Rule] = []
    found: list[nft.Rule] = []
    for each in shared:
        if each.is_named_by_content:
            continue
        if each.rules:
            found += nft.list_rules(family, table, each.chain)
            compared += each.rules
        # Jumps to a chain with rules are only counted: POSTROUTING, where they are, may have thousands of
        # rules.
        for jump in () if each in counted else each.jumps:
            named = f"{each.chain}\0".encode()
            found += [rule for rule in nft.list_rules(family, table, jump.rule.chain) if named in rule.raw]
            compared.append(jump.rule)
        if len(found) != len(compared):
            return None
    return _SharedRules(tuple(compared), tuple(found), generation if compared else None)


def append_commands(wanted: Wanted) -> list[str]:
    """Make the owner's chain, which must not exist. The shared chains must, or iptables refuses all."""
    compared = [rule for each in wanted.shared if not each.is_named_by_content for rule in each.needed]
    return [*(each.as_command("-C") for each in compared), *make_chain(wanted)]


def make_chain(wanted: Wanted) -> list[str]:
    """Make the owner's chain and the rules that lead to it."""
    return [f"-N {wanted.chain}", *(each.line for each in wanted.made)]


def ensure_shared(seen: Seen, wanted: Sequence[Shared], has: Has) -> list[str]:
    """Make each shared chain, rule and jump exist once. Go plugins that start together make doubles."""
    commands = []
    for shared in wanted:
        if shared.chain not in seen:
            commands.append(f"-N {shared.chain}")
        for rule in shared.rules:
            commands += _ensure_once(seen, rule, has, first=False)
        for jump in shared.jumps:
            commands += _ensure_once(seen, jump.rule, has, first=jump.first)
    return commands


def _ensure_once(seen: Seen, rule: Rule, has: Has, *, first: bool) -> list[str]:
    count = list(seen.get(rule.chain, ())).count(rule)
    if count == 1:
        return []
    if not count and seen.get(rule.chain) and has(rule):
        return []
    return [rule.as_command("-D")] * count + [rule.as_command("-I" if first else "-A")]


def missing_chains(seen: Seen, wanted: Sequence[Shared]) -> list[Shared]:
    """Return the chains that `ensure_shared` makes."""
    return [shared for shared in wanted if shared.chain not in seen]


def ensure_chain(seen: Seen, wanted: Wanted, has: Has) -> list[str]:
    """Make the owner's chain exist, with the rules that lead to it.

    An existing chain keeps the rules of another link of the container, whose chain has the same name. Those
    that publish ports of the same address are replaced.
    """
    if wanted.chain not in seen:
        return make_chain(wanted)
    present = list(seen[wanted.chain])
    own = {address for each in wanted.rules if (address := rules.find_address(each))}
    others = [
        each
        for each in present
        if each not in (*wanted.rules, *wanted.last) and rules.find_address(each) not in own
    ]
    content = [*wanted.rules, *others, *wanted.last]
    anew = [] if content == present else [f"-F {wanted.chain}", *(each.line for each in content)]
    return [*anew, *(each.line for each in _missing_entries(seen, wanted, has))]


def restore_chain(seen: Seen, wanted: Wanted, has: Has) -> list[str]:
    """Undo `ensure_chain` where the chain existed before."""
    added = [each.as_command("-D") for each in _missing_entries(seen, wanted, has)]
    return [*added, f"-F {wanted.chain}", *(each.line for each in seen[wanted.chain])]


def _missing_entries(seen: Seen, wanted: Wanted, has: Has) -> list[Rule]:
    return [each for each in wanted.entries if each not in seen.get(each.chain, ()) and not has(each)]


def retried(attempt: Callable[..., None], *args: object) -> None:
    """Run `attempt(*args)`, which reads rules and changes them, until no other program interferes."""
    for remaining in reversed(range(_TRIES)):
        try:
            return attempt(*args)
        except RefusedError as error:
            if not remaining or not error.is_conflict:
                raise
    return None


def remove_chain(tool: Tool, chain: str, parents: Sequence[str], addresses: Sequence[IpAddress] = ()) -> None:
    """Remove a container's chain and the rules of `parents` that lead to it, of every variant of iptables.

    All links of a container on one network have the same chain. If rules name addresses of other links than
    `addresses`, only the rules that name these are removed.
    """

    def attempt(having: Tool) -> None:
        seen = having.list_while_there([chain, *parents])
        having.apply(f"remove chain {chain}", removal_commands(seen, chain, addresses))

    is_in_nftables, others = variants.find_chain(tool, chain)
    if is_in_nftables:
        variants.remove_by_netlink(tool, chain, parents, addresses)
    for having in others:
        try:
            retried(attempt, having)
        except CniError as error:
            variants.raise_if_remains(error, tool, chain)
            raise


def remove_unused(tool: Tool, created: Sequence[Shared]) -> None:
    """Remove shared chains unless another program uses them. They need not exist."""
    try:
        tool.apply("remove shared chains", _shared_removal_commands(created))
    except RefusedError as error:
        if not error.is_conflict and created[0].chain in tool.list_chains([created[0].chain]):
            raise


def removal_commands(seen: Seen, chain: str, addresses: Sequence[IpAddress] = ()) -> list[str]:
    """Remove a chain, if it exists, with every rule that leads to it; `addresses` as in `remove_chain`."""
    if chain not in seen:
        return []
    leading = [rule for listed in seen.values() for rule in listed if rule.leads_to == chain]
    named = [(rules.find_address(rule), rule) for rule in (*seen[chain], *leading)]
    if addresses and any(each and each not in addresses for each, _ in named):
        return [rule.as_command("-D") for each, rule in named if each in addresses]
    return [*(rule.as_command("-D") for rule in leading), f"-F {chain}", f"-X {chain}"]


def _shared_removal_commands(created: Sequence[Shared]) -> list[str]:
    """Remove shared chains. Iptables refuses the transaction if another program uses one of them."""
    commands = []
    for shared in reversed(created):
        commands += [jump.rule.as_command("-D") for jump in shared.jumps]
        commands += [rule.as_command("-D") for rule in shared.rules]
        commands.append(f"-X {shared.chain}")
    return commands


def former_gateways(seen: Seen, of_host: Collection[str]) -> list[Rule]:
    """Return the rules for gateways whose addresses the host does not have: no packet matches them."""
    return [rule for rule in seen.get(rules.GATEWAYS, ()) if rules.find_gateway(rule) not in of_host]


def gateway_removal_commands(former: Sequence[Rule]) -> list[str]:
    """Return the commands that remove rules for gateways, and the chains that they lead to."""
    commands = []
    for rule in former:
        commands += [rule.as_command("-D"), f"-F {rule.leads_to}", f"-X {rule.leads_to}"]
    return commands


def addresses_of_host(version: int) -> frozenset[str]:
    """Return the addresses of all links of the host."""
    # Most ADDs do not ask.
    from cni.kernel import addr
    from cni.kernel.rtnetlink import Netlink

    with Netlink() as nl:
        return frozenset(str(each.address.ip) for each in addr.list_addrs(nl, version=version))
