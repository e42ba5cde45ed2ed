"""Let only a container's own MAC address out of its host end, by rules of the bridge family.

Table, chains and comments are those of the Go bridge plugin's `macspoofchk`, so that either suite removes
what the other has made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall import nft, orphans
from cni.firewall.intents import Owner
from cni.kernel.nfnetlink import ChangedMeanwhileError, kept

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.kernel.link import Link
    from cni.request import Attachment
    from cni.undo import Undo

TABLE = "nat"
HOOK_CHAIN = "PREROUTING"
_TRIES = 10
_PREFIX = "macspoofchk-"
_CHAIN_PREFIX = "cni-br-iface-"
_HOST_IFNAME = re.compile(rb"(veth[0-9a-f]{8})\0")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


def chain_name(owner: Owner) -> str:
    """Name the chain that an owner's frames go through first."""
    return _chains(owner)[0]


def _chains(owner: Owner) -> tuple[str, str]:
    name = f"{_CHAIN_PREFIX}{owner.container_id}-{owner.ifname}"
    return name, f"{name}-mac"


def _comment(owner: Owner) -> str:
    return f"{_PREFIX}{owner.container_id}-{owner.ifname}"


def ensure(owner: Owner, host_ifname: str, mac: str, undo: Undo) -> None:
    """Drop frames from a link with another source than `mac`; replaces the owner's earlier rules."""
    if not _MAC.fullmatch(mac.lower()):
        raise CniError(Code.FIREWALL, f'could not set up the MAC spoof check: invalid MAC address "{mac}"')
    missing = [] if nft.find_chain(nft.BRIDGE, TABLE, HOOK_CHAIN) else [HOOK_CHAIN]
    missing += [] if nft.has_table(nft.BRIDGE, TABLE) else [TABLE]
    undo.add("remove the MAC spoof check", _take_back, owner, missing)
    remove(owner)
    with orphans.bound(owner):
        nft.run_text(_text(owner, host_ifname, mac.lower()), "set up the MAC spoof check")


def try_out() -> None:
    """Raise CniError 101 when nft or the kernel cannot make such rules; they are made elsewhere and go."""
    from cni.operations.status import trial

    with trial():
        nft.run_text(
            _text(Owner("", "status", "eth0"), "veth0", "02:00:00:00:00:01"), "set up the MAC spoof check"
        )


def _text(owner: Owner, host_ifname: str, mac: str) -> str:
    iface, mac_chain = _chains(owner)
    comment = f'comment "{_comment(owner)}"'
    return f"""\
add table bridge {TABLE}
add chain bridge {TABLE} {HOOK_CHAIN} {{ type filter hook prerouting priority -300; policy accept; }}
add chain bridge {TABLE} {iface}
add chain bridge {TABLE} {mac_chain}
flush chain bridge {TABLE} {iface}
flush chain bridge {TABLE} {mac_chain}
add rule bridge {TABLE} {HOOK_CHAIN} iifname "{host_ifname}" jump {iface} {comment}
add rule bridge {TABLE} {iface} jump {mac_chain} {comment}
add rule bridge {TABLE} {mac_chain} ether saddr {mac} return {comment}
add rule bridge {TABLE} {mac_chain} drop {comment}
"""


def remove(owner: Owner) -> None:
    """Take the owner's rules away, made by this suite or by the Go plugins; nothing there is fine."""
    orphans.wait(owner)
    for _ in range(_TRIES):
        existing = [name for name in _chains(owner) if nft.find_chain(nft.BRIDGE, TABLE, name) is not None]
        jumps = _jumps(owner)
        messages = [
            *map(nft.delete_rule, jumps),
            *(nft.flush_chain(nft.BRIDGE, TABLE, name) for name in existing),
            *(nft.delete_chain(nft.BRIDGE, TABLE, name) for name in existing),
        ]
        if nft.commit_deletions(messages):
            return
    raise CniError(Code.TRY_AGAIN, "could not remove the MAC spoof check: others kept changing its rules")


def _jumps(owner: Owner) -> list[nft.Rule]:
    rules = nft.list_rules(nft.BRIDGE, TABLE, HOOK_CHAIN)
    return [rule for rule in rules if rule.comment == _comment(owner)]


def _take_back(owner: Owner, missing: list[str]) -> None:
    remove(owner)
    for _ in range(_TRIES if missing else 0):
        # Bound to the generation: what another attachment comes to use meanwhile must stay.
        number = nft.generation()
        chains = nft.list_chains(nft.BRIDGE, TABLE)
        messages = []
        if HOOK_CHAIN in missing and not nft.list_rules(nft.BRIDGE, TABLE, HOOK_CHAIN):
            messages = [nft.delete_chain(nft.BRIDGE, TABLE, name) for name in chains if name == HOOK_CHAIN]
            if TABLE in missing and chains == [HOOK_CHAIN]:
                messages = [nft.delete_table(nft.BRIDGE, TABLE)]
        try:
            kept().commit(messages, number)
        except ChangedMeanwhileError:
            continue
        else:
            return


def list_stale(valid: Collection[Attachment], hosts: Collection[Link]) -> list[Owner]:
    """List whose checks are of attachments not in `valid` whose host end is not among the host's links.

    The rules do not tell their network, so that a check whose link is there may be another network's. The
    owners that are given have none either, and which dash parts container ID and ifname is not known.
    """
    names = {each.name for each in hosts}
    kept = {f"{each.container_id}-{each.ifname}" for each in valid}
    jumps = [
        rule for rule in nft.list_rules(nft.BRIDGE, TABLE, HOOK_CHAIN) if rule.comment.startswith(_PREFIX)
    ]
    stale = []
    for rule in jumps:
        link = _HOST_IFNAME.search(rule.raw)
        if link is not None and link[1].decode() not in names:
            stale.append(rule.comment.removeprefix(_PREFIX))
    # Chains to which nothing leads any more: where a flush has taken the jump, or half of them.
    led_to = {rule.comment.removeprefix(_PREFIX) for rule in jumps}
    living = {"-".join(each.alias.rsplit(":", 2)[1:]) for each in hosts if each.alias}
    chains = [name for name in nft.list_chains(nft.BRIDGE, TABLE) if name.startswith(_CHAIN_PREFIX)]
    texts = [name.removeprefix(_CHAIN_PREFIX).removesuffix("-mac") for name in chains]
    stale += [text for text in texts if text not in led_to | living]
    parts = (text.rpartition("-") for text in dict.fromkeys(stale) if text not in kept)
    return [Owner("", container_id, ifname) for container_id, _, ifname in parts]


def differences(owner: Owner, host_ifname: str, mac: str) -> list[str]:
    """Tell what is missing or wrong, [] when the check is in place."""
    jumps = _jumps(owner)
    iface, mac_chain = _chains(owner)
    into_mac, of_mac = (nft.list_rules(nft.BRIDGE, TABLE, name) for name in (iface, mac_chain))
    packed = bytes.fromhex(mac.replace(":", ""))
    found = []
    # With its NUL: a longer name that begins with this one must not count.
    if not any(host_ifname.encode() + b"\0" in rule.raw for rule in jumps):
        found.append(f"the MAC spoof check does not cover {host_ifname}")
    if len(into_mac) != 1 or len(of_mac) != 2 or packed not in of_mac[0].raw:
        found.append(f"the MAC spoof check of {host_ifname} does not allow just {mac}")
    return found
