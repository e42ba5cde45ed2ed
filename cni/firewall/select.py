"""Choose the backend that renders intents, and remove rules from all backends.

Functions import the backend that is used, and what only GC or a killed call needs: a cold start pays for each
module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.firewall.intents import KINDS, Applying, RulesRemainError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from cni.firewall.intents import Backend, Intent, Kind, Owner
    from cni.operations.garbage import Stale
    from cni.request import Attachment
    from cni.result import IpAddress
    from cni.undo import Undo

# In the order in which the Go plugins prefer them.
NAMES = ("iptables", "nftables")
_INTERRUPTED = "its call was killed, and its attachment is not valid"


def choose_for_add(asked: str | None, purpose: str) -> Applying:
    """Return the backend for an ADD: the one asked for, or one that tries iptables and then nftables.

    Raise CniError 7 for an unknown name.
    """
    return _load(asked, purpose) if asked else _Auto(purpose)


def choose(asked: str | None, purpose: str) -> Backend:
    """Return the backend asked for. None or "" asks for iptables if it works, else for nftables.

    `purpose` names the purpose in errors ("ipmasq"). Raise CniError 7 for an unknown name, and CniError 50 if
    neither works. A backend that is asked for by name is not probed.
    """
    if asked:
        return _load(asked, purpose)
    reasons = []
    for name in NAMES:
        backend = _load(name)
        reason = backend.unusable_because()
        if not reason:
            return backend
        reasons.append(f"{name}: {reason}")
    raise CniError(
        Code.NOT_AVAILABLE,
        f"no {purpose} backend is usable here: neither iptables nor nftables",
        "; ".join(reasons),
    )


class _Auto(Applying):
    """Use iptables if it works, else nftables. Raise CniError 50 if neither works.

    Iptables is not probed first: that starts a child process in each ADD, twice in a chain of two plugins.
    """

    name = "iptables"

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose

    def apply(self, intent: Intent, undo: Undo) -> None:
        """Make the intent's rules: all of them, or none."""
        from cni.firewall.iptables.backend import Iptables

        first = Iptables()
        if first.is_installed():
            try:
                return first.apply(intent, undo)
            except CniError as error:
                # If iptables works it has refused the intent, and another backend is no remedy.
                if error.code == Code.TRY_AGAIN or not first.unusable_because():
                    raise
        return choose(None, self.purpose).apply(intent, undo)


def require_usable(asked: str | None, purpose: str) -> None:
    """Raise CniError 50, with the reason, if the backend that `choose` returns cannot work here."""
    backend = choose(asked, purpose)
    reason = backend.unusable_because() if asked else ""
    if reason:
        raise CniError(Code.NOT_AVAILABLE, f"the {purpose} backend {backend.name} is not usable here", reason)


def differences(asked: str | None, purpose: str, intent: Intent) -> list[str]:
    """Return the missing parts of an intent in the chosen backend, [] if the other one has all parts.

    The ADD may have had another choice.
    """
    chosen = choose(asked, purpose)
    missing = chosen.differences(intent)
    others = (_load(name) for name in NAMES if missing and name != chosen.name)
    is_elsewhere = any(
        other.may_have(intent) and not other.unusable_because() and not other.differences(intent)
        for other in others
    )
    return [] if is_elsewhere else missing


def remove(owner: Owner, kind: Kind, addresses: Sequence[IpAddress] = ()) -> None:
    """Remove the owner's rules of a kind, whichever backend made them; `addresses` as in `Backend.remove`."""
    from cni.firewall import orphans

    orphans.wait(owner)
    _in_all(lambda backend: backend.remove(owner, kind, addresses))


def stale(network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS) -> list[Stale]:
    """Return what `collect` removes."""
    from cni.firewall import orphans, owners
    from cni.operations.garbage import Stale

    interrupted = orphans.list_invalid(network, owners.tags(network, valid))
    found = [Stale("lock", str(each), network, reason=_INTERRUPTED) for each in interrupted]
    _in_all(lambda backend: found.extend(backend.stale(network, valid, kinds)))
    return found


def collect(network: str, valid: Collection[Attachment], kinds: Sequence[Kind] = KINDS) -> list[str]:
    """Remove the rules of the network's attachments that are not valid in all backends. Return them."""
    from cni.firewall import orphans, owners

    removed = orphans.collect(network, owners.tags(network, valid))
    _in_all(lambda backend: removed.extend(backend.collect(network, valid, kinds)))
    return list(dict.fromkeys(removed))


def _in_all(step: Callable[[Backend], None]) -> None:
    """Run a removal in every backend. Errors of a backend that cannot work here do not count."""
    errors = ErrorList()
    for name in NAMES:
        errors.attempt(_where_usable, _load(name), step)
    errors.raise_any()


def _where_usable(backend: Backend, step: Callable[[Backend], None]) -> None:
    # The backend is probed only after a failure, because a probe costs as much as the removal itself.
    try:
        step(backend)
    except CniError as error:
        remains = any(isinstance(each, RulesRemainError) for each in (error, error.__cause__))
        if remains or error.code == Code.TRY_AGAIN or not backend.unusable_because():
            raise


def _load(name: str, purpose: str = "") -> Backend:
    if name == "iptables":
        from cni.firewall.iptables.backend import Iptables

        return Iptables()
    if name == "nftables":
        from cni.firewall.nftables.backend import Nftables

        return Nftables()
    raise CniError(
        Code.INVALID_CONFIG, f'unknown {purpose} backend "{name}"', f"it is one of: {', '.join(NAMES)}"
    )
