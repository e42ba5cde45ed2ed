"""iptables where the configuration leaves the choice open; nftables where iptables turns out not to work.

Trying iptables out first would take a child process of each ADD, twice in a chain of two plugins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code
from cni.firewall.iptables.backend import Iptables

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.firewall.intents import Backend, Masquerade, PortForward
    from cni.undo import Undo


class Preferred:
    """The part of `Backend` that an ADD needs. Raises CniError 50 where neither works."""

    name = "iptables"

    def __init__(self, what: str) -> None:
        self.what = what

    def add_forward(self, intent: PortForward, undo: Undo) -> None:
        """Publish ports, all or nothing."""
        self._in_one(lambda backend: backend.add_forward(intent, undo))

    def add_masquerade(self, intent: Masquerade, undo: Undo) -> None:
        """Masquerade, all or nothing."""
        self._in_one(lambda backend: backend.add_masquerade(intent, undo))

    def _in_one(self, step: Callable[[Backend], None]) -> None:
        first = Iptables()
        if first.is_installed():
            try:
                return step(first)
            except CniError as error:
                # A refusal for what was asked is no reason to ask another.
                if error.code == Code.TRY_AGAIN or not first.unusable_because():
                    raise
        from cni.firewall.select import choose

        return step(choose(None, self.what))
