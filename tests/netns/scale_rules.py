"""Firewall rules of other programs by the thousand, in the form of programs that are no CNI plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Host

# Only packets for these go through the many rules: else the kernel would be busy with the containers' own.
_SUBNET = "172.16.0.0/16"
# The way in and out of table nat, and the chain that all forwarded packets pass.
_HOOKS = {"nat": ("PREROUTING", "POSTROUTING"), "filter": ("FORWARD",)}


def write_iptables(host: Host, rules: int) -> None:
    """Put so many rules into chains of their own in each of the tables nat and filter."""
    host.run(["iptables-restore", "--noflush"], "".join(_iptables(rules)))


def _iptables(rules: int) -> Iterator[str]:
    for table, hooks in _HOOKS.items():
        yield f"*{table}\n:FOREIGN - [0:0]\n"
        for number in range(rules):
            yield f"-A FOREIGN -d {_address(number)}/32 -p tcp -m tcp --dport 443 -j RETURN\n"
        for hook in hooks:
            yield f"-A {hook} -d {_SUBNET} -j FOREIGN\n"
        yield "COMMIT\n"


def write_nftables(host: Host, rules: int) -> None:
    """Put so many rules into a table of their own, which has nat and filter chains."""
    lines = "\n".join(f"ip daddr {_address(number)} tcp dport 443 return" for number in range(rules))
    text = f"""
        table inet foreign {{
            chain many {{
                {lines}
            }}
            chain nat {{
                type nat hook prerouting priority dstnat; policy accept;
                ip daddr {_SUBNET} jump many
            }}
            chain filter {{
                type filter hook forward priority filter; policy accept;
                ip daddr {_SUBNET} jump many
            }}
        }}
    """
    host.run(["nft", "-f", "-"], text)


def _address(number: int) -> str:
    return f"172.16.{number // 250}.{number % 250}"
