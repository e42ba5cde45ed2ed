"""Hosts with one, both or none of the firewall's programs: the folder of programs is covered by another."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from cni.testing import Host

NFT = {"nft": "nft"}
VARIANTS = ("nft", "legacy")
_PARTS = ("", "-save", "-restore")


def plain(variant: str, *families: str) -> dict[str, str]:
    """Return iptables and ip6tables without a variant in their names, of one variant."""
    return {
        f"{family}{part}": f"{family}-{variant}{part}"
        for family in families or ("iptables", "ip6tables")
        for part in _PARTS
    }


def suffixed(*variants: str) -> dict[str, str]:
    """Return the programs that have their variant in their names."""
    return {name: name for variant in variants for name in plain(variant).values()}


@contextmanager
def equipped(host: Host, programs: Mapping[str, str]) -> Iterator[None]:
    """Equip a host with these firewall programs only: names as found on PATH, and their targets.

    All other programs stay where they are. Nothing else that the tests use may need what is missing.
    """
    links = "\n".join(f"ln -sf /run/all/{program} /run/some/{name}" for name, program in programs.items())
    script = f"""set -e
mkdir -p /run/all /run/some
mount --bind /usr/sbin /run/all
ln -s /run/all/* /run/some/
rm -f /run/some/*tables* /run/some/xtables* /run/some/nft
{links}
mount --bind /run/some /usr/sbin"""
    host.run(["sh", "-c", script])
    try:
        yield
    finally:
        host.run(["/bin/sh", "-c", "/bin/umount /usr/sbin; /bin/umount /run/all; rm -r /run/some"])


def rules(host: Host, variant: str, containing: str = "CNI-") -> list[str]:
    """List the rules of table nat of a variant, of both families."""
    return [
        line
        for family in ("iptables", "ip6tables")
        for line in host.run([f"{family}-{variant}-save", "-t", "nat"]).splitlines()
        if line.startswith("-A") and containing in line
    ]


def variants_used(host: Host, containing: str = "CNI-") -> Collection[str]:
    """Return the variants of iptables that have rules containing a text."""
    return {variant for variant in VARIANTS if rules(host, variant, containing)}
