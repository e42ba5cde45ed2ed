"""Make what all attachments share in nftables, compare with it, and take it away when unused."""

from __future__ import annotations

import errno
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.firewall import nft
from cni.firewall.nftables import elements, records
from cni.firewall.nftables.layout import (
    CONDITIONAL,
    FAMILIES,
    HOST_IP_PORTS,
    MASQUERADE_ALL,
    PORTS,
    RECORDS,
    SECOND,
    SUBNET_CHAINS,
    TABLE,
    Shared,
    family_of,
    hairpin_set,
    leaving_set,
    setup_text,
    subnet_sets,
)
from cni.kernel import child
from cni.kernel.nfnetlink import ChangedMeanwhileError, kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.kernel.nfnetlink import Message
    from cni.result import IpNetwork

# How many rules and jumps hold each chain when it is whole; more may come with subnets and conditions.
_LEAST_USE = {
    "prerouting": 1, "output": 1, "host_ports": 7, "conditional": 1, "second": 1, "gateways": 1,
    "postrouting": 3, "hairpin": 2, "leaving": 1,
}  # fmt: skip
# As the first release has made it, without what keeps gateways from published ports.
_GUARD = "gateways"
_FIRST_USE = {name: least - (name == "host_ports") for name, least in _LEAST_USE.items() if name != _GUARD}
# By these a missing rule or hook shows: how often others hold them depends on the number of subnets at most.
_ASKED = ("host_ports", "gateways", "hairpin", "leaving")
_HOOKED = {"prerouting", "output", "postrouting"}
_TRIES = 50


def ensure(subnets: Iterable[IpNetwork], made: list[Shared]) -> None:
    """Make what these subnets need; `made` learns what was missing, before it is made.

    Something may be named there more than once, when others make and remove it meanwhile.
    """
    wanted = list(subnets)
    for _ in range(_TRIES):
        missing = list(_missing(wanted))
        if not missing:
            ensure_whole(dict.fromkeys(map(family_of, wanted)))
            return
        made += missing
        # Refused as a whole if somebody else has just made part of it: then less is missing.
        script = "".join(setup_text(each, records.identity()) for each in missing)
        nft.run_text(script, "set up nftables")
    raise CniError(Code.TRY_AGAIN, "could not set up nftables: others kept removing it")


def _missing(subnets: list[IpNetwork]) -> Iterator[Shared]:
    for family in dict.fromkeys(map(family_of, subnets)):
        if not nft.has_table(family, TABLE):
            yield Shared(family)
        sets = elements.list_sets(family)
        for subnet in subnets:
            if family_of(subnet) == family and hairpin_set(str(subnet)) not in sets:
                yield Shared(family, str(subnet))


def asked(families: Sequence[int]) -> list[tuple[int, str]]:
    """Name the chains, each with its family, by which `make_whole` sees whether rules are missing."""
    return [(family, name) for family in families for name in _ASKED]


def make_whole(families: Sequence[int], found: Sequence[nft.Chain | None]) -> None:
    """Make anew what somebody has removed of these families' tables, or an earlier release did not make.

    `found` are the chains that `asked` names. They tell how many rules and jumps hold them: the jumps from
    all chains with hooks, and from each other, are among these.
    """
    count = len(_ASKED)
    broken = [
        family
        for at, family in enumerate(families)
        if not _is_plausible(family, found[at * count : (at + 1) * count])
    ]
    if broken:
        from cni.firewall.nftables import rebuild

        rebuild.mend(broken)


def ensure_whole(families: Iterable[int]) -> None:
    """Ask for what `make_whole` goes by, and make whole what is not."""
    wanted = list(families)
    make_whole(wanted, nft.find_chains(TABLE, asked(wanted)))


def _is_plausible(family: int, chains: Sequence[nft.Chain | None]) -> bool:
    """Return whether the chains of `_ASKED` are held as often as some number of subnets makes them."""
    uses = [
        0 if chain is None else chain.use - _LEAST_USE[name]
        for chain, name in zip(chains, _ASKED, strict=True)
    ]
    ports, gateways, hairpin, leaving = uses
    per_subnet = 2 if family == nft.IPV4 else 1
    return None not in chains and ports == 0 and gateways == leaving and hairpin == leaving * per_subnet


def has_complete_records() -> bool:
    """Tell whether every owner that has elements has a record here: one without needs no search then.

    Not so when the folder was emptied or lies in another mount namespace than that of who made the table.
    """
    return all(_has_complete_records(family) for family in FAMILIES)


def _has_complete_records(family: int) -> bool:
    found = elements.find(elements.Element(family, RECORDS, bytes(2)))
    if found is None:
        return not nft.has_table(family, TABLE)
    return found.comment == (records.identity() or None)


def differences(family: int, subnets: Iterable[str], *, is_guarded: bool) -> list[str]:
    """Return what the table lacks, and what these subnets lack in it.

    What keeps gateways from published ports, which the first release did not make, may be missing unless
    `is_guarded`.
    """
    where = f"nftables table {nft.FAMILY_NAMES[family]} {TABLE}"
    if not nft.has_table(family, TABLE):
        return [f"{where} does not exist"]
    found = []
    for name, least in (_LEAST_USE if is_guarded else _FIRST_USE).items():
        chain = nft.find_chain(family, TABLE, name)
        if chain is None:
            found.append(f"chain {name} of {where} does not exist")
        elif chain.use < least or chain.has_hook is not (name in _HOOKED):
            found.append(f"chain {name} of {where} lacks rules or its hook")
    found += [
        f"chain {chain} of {where} has no rule for subnet {subnet}"
        for subnet in subnets
        for chain in SUBNET_CHAINS
        if (is_guarded or chain != _GUARD)
        and not any(rule.comment == subnet for rule in nft.list_rules(family, TABLE, chain))
    ]
    return found


def list_shared() -> list[Shared]:
    """List the tables and subnets that are set up, in use or not."""
    return [
        shared
        for family in FAMILIES
        if nft.has_table(family, TABLE)
        for shared in (*map(Shared, [family]), *list_subnets(family))
    ]


def list_subnets(family: int) -> list[Shared]:
    """List the subnets that are set up in the table of a family."""
    prefix = "leaving-"
    names = (name.removeprefix(prefix) for name in elements.list_sets(family) if name.startswith(prefix))
    separator = ":" if family == nft.IPV6 else "."
    return [Shared(family, str(ip_network(name.replace("-", separator)))) for name in names]


def remove_unused(candidates: Iterable[Shared]) -> None:
    """Take away those of the shared things that nobody uses; what comes into use meanwhile stays."""
    wanted = list(dict.fromkeys(candidates))
    for _ in range(_TRIES):
        number = nft.generation()
        try:
            kept().commit([message for family in FAMILIES for message in _removal(family, wanted)], number)
        except ChangedMeanwhileError:
            continue
        else:
            return


def _removal(family: int, wanted: list[Shared]) -> list[Message]:
    subnets = [each for each in wanted if each.family == family and each.subnet]
    sets = elements.list_sets(family) if nft.has_table(family, TABLE) else []
    unused = [subnet for _, subnet in subnets if hairpin_set(subnet) in sets and not _is_used(family, subnet)]
    others = set(sets) - {name for subnet in unused for name in subnet_sets(subnet)}
    if Shared(family) in wanted and sets and not _is_table_used(family, others):
        return [nft.delete_table(family, TABLE)]
    return [message for subnet in unused for message in _subnet_removal(family, subnet, sets)]


def _is_used(family: int, subnet: str) -> bool:
    return not all(elements.is_empty(family, name) for name in (hairpin_set(subnet), leaving_set(subnet)))


def _is_table_used(family: int, sets: set[str]) -> bool:
    # A set of a subnet that is not to go counts as use, an empty one too.
    shared = {PORTS, HOST_IP_PORTS, MASQUERADE_ALL}
    if sets - shared - {RECORDS}:
        return True
    if any(nft.list_rules(family, TABLE, chain) for chain in (CONDITIONAL, SECOND)):
        return True
    return not all(elements.is_empty(family, name) for name in shared)


def _subnet_removal(family: int, subnet: str, sets: Sequence[str]) -> list[Message]:
    rules = [
        nft.delete_rule(rule)
        for chain in SUBNET_CHAINS
        for rule in nft.list_rules(family, TABLE, chain)
        if rule.comment == subnet
    ]
    return [
        *rules,
        *(elements.delete_set(family, name) for name in subnet_sets(subnet) if name in sets),
    ]


def unusable_because() -> str:
    """Tell why nftables cannot work here, "" when it can."""
    if child.find("nft") is None:
        return "nft is not installed"
    try:
        nft.generation()
    except KernelError as error:
        if error.errno in {errno.EPERM, errno.EACCES}:
            return "nftables may not be used: CAP_NET_ADMIN is missing"
        return f"the kernel has no nftables: {error.msg}"
    return ""
