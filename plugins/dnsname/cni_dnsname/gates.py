"""Accept queries in the chains of other programs' tables of nftables that drop what the host receives.

A packet that one chain drops is lost, whatever a chain of another table accepts. So the rules stand at the
front of each chain that drops: two of them lead port 53 to a chain of ours in the same table, with a rule for
each subnet and gateway. A record names the tables; their chains go with the last network.

A chain that drops by a rule in its middle, and not all remaining packets at its end, is not changed, as the
order of its rules may have a reason. CHECK asks from the container, and names the rule that is missing.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import hooks, nft, owners
from cni.kernel.filtering import CHAIN as HOOK
from cni.kernel.filtering import INPUT, list_hooked
from cni.kernel.filtering import TABLE as FILTER
from cni.state import attachments
from cni_dnsname.admission import NFTABLES, is_firewalld, is_iptables, key_of, load_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.kernel.nfnetlink import Message
    from cni_dnsname.admission import Queries

CHAIN = "pycni-names"
_LEAD = "pycni: queries for names"
_TRIES = 5
_NUMBERS = {name: number for number, name in nft.FAMILY_NAMES.items()}


class Saved(NamedTuple):
    """The chains that lead to rules of a network, and its subnets with their gateways."""

    places: tuple[nft.Place, ...]
    pairs: tuple[tuple[str, str], ...]


class _Missing(NamedTuple):
    """A rule that is missing, as a command, and the chain that drops without it."""

    place: nft.Place
    command: str


def admit(queries: Queries, *, everywhere: bool) -> None:
    """Add the rules that are missing; search for chains if `everywhere`, or if known ones are gone.

    Raise CniError 101.
    """
    saved = load(queries.owner.network)
    if not everywhere and (saved is None or _is_whole(saved, queries)):
        return
    missing = list(_list_missing(queries))
    if not missing:
        return
    before = saved or Saved((), ())
    places = dict.fromkeys([*before.places, *(each.place for each in missing)])
    pairs = dict.fromkeys([*before.pairs, *queries.pairs])
    _save(queries.owner.network, Saved(tuple(places), tuple(pairs)))
    chains = dict.fromkeys(f"add chain {_table(*each.place)} {CHAIN}" for each in missing)
    # Two chains of a table lead to the same rules.
    commands = dict.fromkeys([*chains, *(each.command for each in missing)])
    nft.run_text("\n".join([*commands, ""]), "accept queries in other tables")


def _is_whole(saved: Saved, queries: Queries) -> bool:
    """Return whether the record has all that is wanted, and its chains exist. No chains are listed."""
    wanted = [(family, table, CHAIN) for family, table, _ in saved.places]
    return {*queries.pairs} <= {*saved.pairs} and None not in nft.find_chains([*saved.places, *wanted])


def differences(queries: Queries) -> list[str]:
    """Return the rules that are missing."""
    return [
        f"nftables chain {_table(*each.place)} {each.place[2]} drops queries: it needs '{each.command}'"
        for each in _list_missing(queries)
    ]


def _list_missing(queries: Queries) -> Iterable[_Missing]:
    """Yield the rules that are missing in the chains that drop."""
    for chain in list_hooked(INPUT):
        place = family, table, name = chain[:3]
        if _is_elsewhere(place) or not hooks.drops_rest(chain):
            continue
        pairs = [each for each in queries.pairs if family in {nft.INET, _family(each)}]
        if not pairs:
            continue
        where = _table(*place)
        present = {each.comment for each in nft.list_rules(family, table, CHAIN)}
        for pair in pairs:
            comment = comment_of(queries.owner.network, pair)
            if comment not in present:
                rule = f'{_match(pair)} accept comment "{comment}"'
                yield _Missing(place, f"add rule {where} {CHAIN} {rule}")
        led = {each.comment for each in nft.list_rules_with(*place, [_LEAD.encode()])}
        for protocol in ("udp", "tcp"):
            comment = f"{_LEAD} by {protocol}"
            if comment not in led:
                rule = f'{protocol} dport 53 jump {CHAIN} comment "{comment}"'
                yield _Missing(place, f"insert rule {where} {name} {rule}")


def _is_elsewhere(place: nft.Place) -> bool:
    """Return whether firewalld or iptables has the rules for a chain."""
    family, table, name = place
    if (table, name) == (FILTER, HOOK):
        return any(family == nft.FAMILIES[version] and is_iptables(version) for version in nft.FAMILIES)
    return table == "firewalld" and is_firewalld()


def _family(pair: tuple[str, str]) -> int:
    return nft.FAMILIES[ip_address(pair[1]).version]


def _match(pair: tuple[str, str]) -> str:
    subnet, gateway = pair
    protocol = "ip6" if ":" in gateway else "ip"
    return f"{protocol} saddr {subnet} {protocol} daddr {gateway}"


def _table(family: int, table: str, _chain: str) -> str:
    return f"{nft.FAMILY_NAMES[family]} {table}"


def _prefix(network: str) -> str:
    return f"pycni names {owners.network_tag(network)}"


def comment_of(network: str, pair: tuple[str, str]) -> str:
    """Return the comment of the rule for a subnet and a gateway."""
    text = f"{_prefix(network)}{'>'.join(pair)}, net: {network}"
    return text.encode()[: owners.COMMENT_BYTES].decode(errors="ignore")


def withdraw(network: str) -> None:
    """Remove the rules of a network, and what no other network needs. Raise CniError 11 or 101."""
    saved = load(network)
    if saved is None:
        return
    for family, table in dict.fromkeys(place[:2] for place in saved.places):
        for _ in range(_TRIES):
            deletions = _list_deletions(network, family, table)
            if not deletions or nft.commit_deletions(deletions):
                break
        else:
            reason = "another program kept changing it"
            raise CniError(Code.TRY_AGAIN, f"could not remove rules of table {table}: {reason}")
    attachments.drop(key_of(network, NFTABLES))


def _list_deletions(network: str, family: int, table: str) -> list[Message]:
    listed = nft.list_rules(family, table, CHAIN)
    own = [each for each in listed if each.comment.startswith(_prefix(network))]
    deletions = [nft.delete_rule(each) for each in own]
    if len(own) < len(listed) or nft.find_chain(family, table, CHAIN) is None:
        return deletions
    for chain in list_hooked(INPUT):
        if chain[:2] == (family, table):
            led = nft.list_rules_with(*chain[:3], [_LEAD.encode()])
            deletions += [nft.delete_rule(each) for each in led if each.comment.startswith(_LEAD)]
    return [*deletions, nft.delete_chain(family, table, CHAIN)]


def load(network: str) -> Saved | None:
    """Return the record of a network's rules, None without one."""
    values = load_values(network, NFTABLES)
    if values is None:
        return None
    places = [
        (_NUMBERS[family], table, chain)
        for family, table, chain in _list_texts(values.get("places"), 3)
        if family in _NUMBERS
    ]
    pairs = [(subnet, gateway) for subnet, gateway in _list_texts(values.get("pairs"), 2)]
    return Saved(tuple(places), tuple(pairs))


def _save(network: str, saved: Saved) -> None:
    places = [[nft.FAMILY_NAMES[family], table, chain] for family, table, chain in saved.places]
    attachments.save(key_of(network, NFTABLES), {"places": places, "pairs": list(map(list, saved.pairs))})


def _list_texts(value: object, length: int) -> list[list[str]]:
    """Return the lists of so many texts in a value of a record."""
    listed = value if isinstance(value, list) else []
    return [
        each
        for each in listed
        if isinstance(each, list) and len(each) == length and all(isinstance(text, str) for text in each)
    ]
