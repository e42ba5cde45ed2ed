"""Make, compare, rebuild and remove what all attachments share in nftables."""

from __future__ import annotations

import errno
from ipaddress import ip_network
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, KernelError
from cni.firewall import nft
from cni.firewall.nftables import elements, records
from cni.firewall.nftables.layout import (
    CLIENTS,
    CONDITIONAL,
    FAMILIES,
    HOOKED,
    HOST_IP_CLIENTS,
    HOST_IP_PORTS,
    HOST_IP_RESTRICTED,
    MASQUERADE_ALL,
    NOT_MASQUERADED,
    PORTS,
    RECORDS,
    RESTRICTED,
    SECOND,
    SUBNET_CHAINS,
    TABLE,
    Shared,
    family_of,
    hairpin_set,
    leaving_set,
    rebuild_script,
    setup_script,
    subnet_sets,
)
from cni.kernel import child
from cni.kernel.nfnetlink import ChangedMeanwhileError, kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.kernel.nfnetlink import Message
    from cni.result import IpNetwork

# How many rules and jumps use each complete chain. Subnets and conditions add more.
_LEAST_USE = {
    "prerouting": 1, "output": 1, "host_ports": 9, "conditional": 1, "second": 1, "gateways": 1,
    "postrouting": 4, "hairpin": 2, "leaving": 1,
}  # fmt: skip
# Earlier releases had fewer rules, and had no set `RESTRICTED`.
_EARLIER_USE = _LEAST_USE | {"host_ports": 7, "postrouting": 3}
# The first release made no rules that keep published ports from gateways: no such chain, and no jump to it.
_GUARD = "gateways"
_JUMPING = "host_ports"
# The use of these chains shows a missing rule or hook: it depends on nothing but the number of subnets.
_ASKED = ("host_ports", "gateways", "hairpin", "leaving")
# The sets and maps whose elements have owners in any subnet.
_SHARED_SETS = {
    PORTS, HOST_IP_PORTS, MASQUERADE_ALL, NOT_MASQUERADED,
    RESTRICTED, CLIENTS, HOST_IP_RESTRICTED, HOST_IP_CLIENTS,
}  # fmt: skip
_TRIES = 50
_REBUILD_TRIES = 10


def ensure(subnets: Iterable[IpNetwork], created: list[Shared]) -> None:
    """Make what these subnets need. Before that, add what is missing to `created`.

    An object may be added more than once, if other programs remove it meanwhile.
    """
    wanted = list(subnets)
    for _ in range(_TRIES):
        missing = list(_missing(wanted))
        if not missing:
            families = list(dict.fromkeys(map(family_of, wanted)))
            make_whole(families, nft.find_chains(asked(families)))
            return
        created += missing
        # nft refuses the script if another call has just made a part of it. Then less is missing.
        script = "".join(setup_script(each, records.identity()) for each in missing)
        nft.run_text(script, "set up nftables")
    raise CniError(
        Code.TRY_AGAIN,
        f"could not set up nftables: another program deleted tables of ours {_TRIES} times meanwhile",
        'Stop that program or exclude tables "ip pycni" and "ip6 pycni"; "nft monitor" shows it.',
    )


def _missing(subnets: list[IpNetwork]) -> Iterator[Shared]:
    for family in dict.fromkeys(map(family_of, subnets)):
        if not nft.has_table(family, TABLE):
            yield Shared(family)
        sets = elements.list_sets(family)
        for subnet in subnets:
            if family_of(subnet) == family and hairpin_set(str(subnet)) not in sets:
                yield Shared(family, str(subnet))


def asked(families: Sequence[int]) -> list[nft.Place]:
    """Return the chains that show `make_whole` whether rules are missing."""
    return [(family, TABLE, name) for family in families for name in _ASKED]


def make_whole(families: Sequence[int], present: Sequence[nft.Chain | None]) -> None:
    """Make what another program has removed of these families' tables, or an earlier release did not make.

    `present` are the chains that `asked` returns. The kernel counts the rules and jumps that use them, with
    the jumps from all chains with hooks.
    """
    count = len(_ASKED)
    rebuild(
        family
        for at, family in enumerate(families)
        if not _is_plausible(family, present[at * count : (at + 1) * count])
    )


def rebuild(families: Iterable[int]) -> None:
    """Rebuild the tables of these families that exist and are incomplete. Raise CniError 101, or 11.

    One transaction writes the rules of the table again, so that no packet meets half of it. Elements and the
    owners' own chains remain; each owner's repair adds missing ones.
    """
    for family in families:
        # This flushes rules of a subnet that another call sets up meanwhile: then they are missing.
        for _ in range(_REBUILD_TRIES):
            if not _rebuild(family):
                break
        else:
            raise CniError(Code.TRY_AGAIN, "could not rebuild nftables: another program kept changing it")


def _rebuild(family: int) -> bool:
    """Return whether the table was incomplete, and has been rebuilt."""
    if not nft.has_table(family, TABLE):
        return False
    subnets = [each.subnet for each in list_subnets(family)]
    if not differences(family, subnets, is_guarded=True, may_be_earlier=False):
        return False
    chains = nft.find_chains([(family, TABLE, name) for name in HOOKED])
    unhooked = [name for name, chain in zip(HOOKED, chains, strict=True) if not (chain and chain.has_hook)]
    nft.run_text(rebuild_script(family, subnets, unhooked, records.identity()), "rebuild nftables")
    return True


def _is_plausible(family: int, chains: Sequence[nft.Chain | None]) -> bool:
    """Return whether the uses of the chains of `_ASKED` fit any number of subnets."""
    uses = [
        0 if chain is None else chain.use - _LEAST_USE[name]
        for chain, name in zip(chains, _ASKED, strict=True)
    ]
    ports, gateways, hairpin, leaving = uses
    per_subnet = 2 if family == nft.IPV4 else 1
    return None not in chains and ports == 0 and gateways == leaving and hairpin == leaving * per_subnet


def has_complete_records() -> bool:
    """Return whether every owner with elements has a record here. Then an owner without one needs no search.

    It is not so if the folder was emptied, or if the table was made in another mount namespace.
    """
    return all(_has_complete_records(family) for family in FAMILIES)


def _has_complete_records(family: int) -> bool:
    found = elements.find(elements.Element(family, RECORDS, bytes(2)))
    if found is None:
        return not nft.has_table(family, TABLE)
    return found.comment == (records.identity() or None)


def differences(
    family: int, subnets: Iterable[str], *, is_guarded: bool, may_be_earlier: bool = True
) -> list[str]:
    """Return what the table lacks, and what these subnets lack in it.

    Rules that keep published ports from gateways, which the first release did not make, may be missing unless
    `is_guarded`; so may, if it `may_be_earlier`, all that the release that made the table did not know.
    """
    where = f"nftables table {nft.FAMILY_NAMES[family]} {TABLE}"
    if not nft.has_table(family, TABLE):
        return [f"{where} does not exist"]
    found = []
    is_earlier = may_be_earlier and RESTRICTED not in elements.list_sets(family)
    expected = dict(_EARLIER_USE if is_earlier else _LEAST_USE)
    if not is_guarded:
        del expected[_GUARD]
        expected[_JUMPING] -= 1
    for name, least in expected.items():
        chain = nft.find_chain(family, TABLE, name)
        if chain is None:
            found.append(f"chain {name} of {where} does not exist")
        elif chain.use < least or chain.has_hook is not (name in HOOKED):
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
    """List the tables and subnets that exist, used or not."""
    return [
        shared
        for family in FAMILIES
        if nft.has_table(family, TABLE)
        for shared in (*map(Shared, [family]), *list_subnets(family))
    ]


def list_subnets(family: int) -> list[Shared]:
    """List the subnets that exist in the table of a family."""
    prefix = "leaving-"
    names = (name.removeprefix(prefix) for name in elements.list_sets(family) if name.startswith(prefix))
    separator = ":" if family == nft.IPV6 else "."
    return [Shared(family, str(ip_network(name.replace("-", separator)))) for name in names]


def remove_unused(candidates: Iterable[Shared]) -> None:
    """Remove those of the shared objects that are unused. Objects that others begin to use remain."""
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
    # A set of a subnet that remains counts as use, even an empty one.
    if sets - _SHARED_SETS - {RECORDS}:
        return True
    if any(nft.list_rules(family, TABLE, chain) for chain in (CONDITIONAL, SECOND)):
        return True
    return not all(elements.is_empty(family, name) for name in _SHARED_SETS & sets)


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
    """Return why nftables cannot work here, "" if it can."""
    if child.find("nft") is None:
        return "nft is not installed"
    try:
        nft.generation()
    except KernelError as error:
        if error.errno in {errno.EPERM, errno.EACCES}:
            return "nftables may not be used: CAP_NET_ADMIN is missing"
        return f"the kernel has no nftables: {error.msg}"
    return ""
