"""Attacks by a process with CAP_NET_ADMIN in a container, which changes its link to be taken for another one.

Attacks are commands of `ip`. In them VICTIM is the index of the victim's host end and INNER that of its own
end; VICTIM_MAC and VICTIM_ADDRESS are the addresses of its own end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cni.testing import Sandbox

PAIR_OF_ITS_OWN = "link add eth0 index INNER type veth peer name decoy index VICTIM"
ATTACKS = {
    "another link": ["link del eth0", PAIR_OF_ITS_OWN],
    "a second link": [
        "link set eth0 down",
        "link set eth0 name hidden",
        "link set hidden up",
        PAIR_OF_ITS_OWN,
    ],
    "the same addresses": [
        "link del eth0",
        PAIR_OF_ITS_OWN,
        "link set eth0 address VICTIM_MAC",
        "addr add VICTIM_ADDRESS/24 dev eth0",
    ],
    "a link of another kind": ["link del eth0", "link add eth0 index INNER type bridge"],
}


def attack(sandbox: Sandbox, commands: Iterable[str], words: dict[str, str]) -> None:
    """Run commands of `ip` in the attacker's sandbox, with values in place of VICTIM and the other words."""
    longest_first = sorted(words, key=len, reverse=True)
    for command in commands:
        filled = command
        for word in longest_first:
            filled = filled.replace(word, words[word])
        sandbox.run(["ip", *filled.split()])
