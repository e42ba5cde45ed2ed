"""Which backend renders intents, and what must be done in all of them.

A backend's module is loaded only when it is asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from cni.firewall.intents import Adding, Backend, Owner
    from cni.operations.garbage import Stale
    from cni.request import Attachment

# In the order of preference where the configuration leaves it open, which is the Go plugins'.
NAMES = ("iptables", "nftables")
_CUT_SHORT = "its call was killed, and its attachment is not valid"


def choose_for_add(asked: str | None, what: str) -> Adding:
    """Give the backend that an ADD is to use; one that is not asked for by name shows by that if it works.

    Raises CniError 7 for an unknown name.
    """
    if asked:
        return _named(asked, what)
    from cni.firewall.auto_backend import Preferred

    return Preferred(what)


def choose(asked: str | None, what: str) -> Backend:
    """Give the backend that is asked for; None or "" asks for iptables where it works, else nftables.

    `what` names in errors what it is for ("ipmasq"). Raises CniError 7 for an unknown name and CniError 50
    where neither works. One that is asked for by name is not tried out first.
    """
    if asked:
        return _named(asked, what)
    reasons = []
    for name in NAMES:
        backend = _load(name)
        reason = backend.unusable_because()
        if not reason:
            return backend
        reasons.append(f"{name}: {reason}")
    raise CniError(
        Code.NOT_AVAILABLE,
        f"no {what} backend is usable here: neither iptables nor nftables",
        "; ".join(reasons),
    )


def _named(asked: str, what: str) -> Backend:
    if asked in NAMES:
        return _load(asked)
    raise CniError(
        Code.INVALID_CONFIG, f'unknown {what} backend "{asked}"', f"it is one of: {', '.join(NAMES)}"
    )


def require_usable(asked: str | None, what: str) -> None:
    """Raise CniError 50 when the backend that `choose` gives cannot work here, saying why."""
    backend = choose(asked, what)
    reason = backend.unusable_because() if asked else ""
    if reason:
        raise CniError(Code.NOT_AVAILABLE, f"the {what} backend {backend.name} is not usable here", reason)


def remove_forward(owner: Owner) -> None:
    """Take away what was published for the owner, whichever backend made it."""
    _wait_for_orphans(owner)
    _in_all(lambda backend: backend.remove_forward(owner))


def remove_masquerade(owner: Owner) -> None:
    """Take away the owner's masquerading, whichever backend made it."""
    _wait_for_orphans(owner)
    _in_all(lambda backend: backend.remove_masquerade(owner))


def stale(network: str, valid: Collection[Attachment]) -> list[Stale]:
    """Tell what `collect` would remove."""
    from cni.firewall import orphans, owners
    from cni.operations.garbage import Stale

    cut_short = orphans.list_invalid(network, owners.tags(network, valid))
    found = [Stale("lock", str(each), network, reason=_CUT_SHORT) for each in cut_short]
    _in_all(lambda backend: found.extend(backend.stale(network, valid)))
    return found


def collect(network: str, valid: Collection[Attachment]) -> list[str]:
    """Remove what any backend made for attachments of the network that are not valid; name those removed."""
    from cni.firewall import orphans, owners

    removed = orphans.collect(network, owners.tags(network, valid))
    _in_all(lambda backend: removed.extend(backend.collect(network, valid)))
    return list(dict.fromkeys(removed))


def _wait_for_orphans(owner: Owner) -> None:
    from cni.firewall import orphans

    orphans.wait(owner)


def _in_all(step: Callable[[Backend], None]) -> None:
    """Run a removal in every backend; the errors of one that cannot work here do not count."""
    errors = ErrorList()
    for name in NAMES:
        errors.attempt(_where_usable, _load(name), step)
    errors.raise_any()


def _where_usable(backend: Backend, step: Callable[[Backend], None]) -> None:
    # Whether it works is asked only when it has failed: that costs as much as the removal itself.
    try:
        step(backend)
    except CniError as error:
        from cni.firewall.rules_remain import LeftError

        is_left = isinstance(error, LeftError) or isinstance(error.__cause__, LeftError)
        if is_left or error.code == Code.TRY_AGAIN or not backend.unusable_because():
            raise


def _load(name: str) -> Backend:
    if name == "iptables":
        from cni.firewall.iptables.backend import Iptables

        return Iptables()
    from cni.firewall.nftables.backend import Nftables

    return Nftables()
