"""Let only a container's own MAC address out of its host end: an intent that only nftables has.

Its rules are in the bridge family. Table, chains and comments are those of the Go bridge plugin's
`macspoofchk`, so that either suite removes the rules of the other.

bridge imports this module in each ADD. Therefore what only nftables needs is imported in functions.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall import nft, orphans
from cni.firewall.intents import Kind, Owner

if TYPE_CHECKING:
    from collections.abc import Collection

    from cni.firewall.intents import Backend
    from cni.firewall.nftables.chains import OwnChain
    from cni.firewall.nftables.plan import Plan, Rendering
    from cni.kernel.link import Link
    from cni.request import Attachment
    from cni.undo import Undo

TABLE = "nat"
HOOK_CHAIN = "PREROUTING"
_PREFIX = "macspoofchk-"
_CHAIN_PREFIX = "cni-br-iface-"
_HOST_IFNAME = re.compile(rb"(veth[0-9a-f]{8})\0")
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


class SpoofCheck(NamedTuple):
    """Drop frames from a link of the host that have another source address than `mac`."""

    owner: Owner
    host_ifname: str
    mac: str

    @property
    def kind(self) -> Kind:
        """The kind of intent."""
        return SPOOF_CHECK

    @property
    def versions(self) -> tuple[int, ...]:
        """The IP versions: none, as the rules are about frames."""
        return ()


def chain_name(owner: Owner) -> str:
    """Return the name of the chain that an owner's frames go through first."""
    return f"{_CHAIN_PREFIX}{owner.container_id}-{owner.ifname}"


def _own(owner: Owner) -> list[OwnChain]:
    from cni.firewall.nftables.chains import OwnChain

    name, comment = chain_name(owner), f"{_PREFIX}{owner.container_id}-{owner.ifname}"
    return [OwnChain(nft.BRIDGE, TABLE, HOOK_CHAIN, each, comment) for each in (name, f"{name}-mac")]


def _validate(intent: SpoofCheck) -> None:
    if not _MAC.fullmatch(intent.mac.lower()):
        raise CniError(
            Code.FIREWALL, f'could not set up the MAC spoof check: invalid MAC address "{intent.mac}"'
        )


def _plan(intent: SpoofCheck) -> Plan:
    from cni.firewall.nftables.plan import Plan

    first, second = _own(intent.owner)
    comment = f'comment "{first.tag}"'
    script = f"""\
add table bridge {TABLE}
add chain bridge {TABLE} {HOOK_CHAIN} {{ type filter hook prerouting priority -300; policy accept; }}
add chain bridge {TABLE} {first.name}
add chain bridge {TABLE} {second.name}
add rule bridge {TABLE} {HOOK_CHAIN} iifname "{intent.host_ifname}" jump {first.name} {comment}
add rule bridge {TABLE} {first.name} jump {second.name} {comment}
add rule bridge {TABLE} {second.name} ether saddr {intent.mac.lower()} return {comment}
add rule bridge {TABLE} {second.name} drop {comment}
"""
    return Plan(script=script)


def _compare(intent: SpoofCheck) -> list[str]:
    first, second = _own(intent.owner)
    jumps = [rule for rule in nft.list_rules(nft.BRIDGE, TABLE, HOOK_CHAIN) if first.is_jump(rule)]
    into_mac, of_mac = (nft.list_rules(*each.place) for each in (first, second))
    packed = bytes.fromhex(intent.mac.replace(":", ""))
    found = []
    # With its NUL: a longer name that begins with this one must not count.
    if not any(intent.host_ifname.encode() + b"\0" in rule.raw for rule in jumps):
        found.append(f"the MAC spoof check does not cover {intent.host_ifname}")
    if len(into_mac) != 1 or len(of_mac) != 2 or packed not in of_mac[0].raw:
        found.append(f"the MAC spoof check of {intent.host_ifname} does not allow just {intent.mac}")
    return found


def _rendering() -> Rendering:
    from cni.firewall.nftables.plan import Rendering

    return Rendering(_plan, _own, validate=_validate, compare=_compare)


SPOOF_CHECK = Kind("spoofcheck", "MAC spoof check", "set up the MAC spoof check of", nftables=_rendering)


def _backend() -> Backend:
    from cni.firewall.nftables.backend import Nftables

    return Nftables()


def ensure(owner: Owner, host_ifname: str, mac: str, undo: Undo) -> None:
    """Drop frames from a link with another source than `mac`. This replaces the owner's earlier rules."""
    _backend().apply(SpoofCheck(owner, host_ifname, mac), undo)


def differences(owner: Owner, host_ifname: str, mac: str) -> list[str]:
    """Return what is missing or wrong, [] if the check is complete."""
    return _backend().differences(SpoofCheck(owner, host_ifname, mac))


def remove(owner: Owner) -> None:
    """Remove the owner's rules, made by this suite or by the Go plugins. None need to exist."""
    orphans.wait(owner)
    _backend().remove(owner, SPOOF_CHECK)


def require_working() -> None:
    """Raise CniError 101 if nft or the kernel cannot make such rules, in a namespace of its own."""
    from cni.operations.status import trial

    sample = SpoofCheck(Owner("", "status", "eth0"), "veth0", "02:00:00:00:00:01")
    with trial():
        nft.run_text(_plan(sample).script, "set up the MAC spoof check")


def list_stale(valid: Collection[Attachment], hosts: Collection[Link]) -> list[Owner]:
    """List owners of spoof-check rules whose attachment is not valid and whose host veth no longer exists.

    The rules do not name their network, so that a check whose link exists may belong to another one. The
    owners that are returned have no network either, and the last dash is taken as the one before the ifname.
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
    # Chains without a jump remain after a flush of the hook's chain.
    led_to = {rule.comment.removeprefix(_PREFIX) for rule in jumps}
    living = {"-".join(each.alias.rsplit(":", 2)[1:]) for each in hosts if each.alias}
    chains = [name for name in nft.list_chains(nft.BRIDGE, TABLE) if name.startswith(_CHAIN_PREFIX)]
    texts = [name.removeprefix(_CHAIN_PREFIX).removesuffix("-mac") for name in chains]
    stale += [text for text in texts if text not in led_to | living]
    parts = (text.rpartition("-") for text in dict.fromkeys(stale) if text not in kept)
    return [Owner("", container_id, ifname) for container_id, _, ifname in parts]
