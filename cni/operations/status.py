"""STATUS: the reasons why an ADD could not work or containers are cut off, all of them told in one error."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError, Code, ErrorList
from cni.kernel import netns
from cni.kernel.rtnetlink import Netlink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    # What is wrong, and with which one of many; "" where there is but one.
    Impairment = tuple[str, str]

_LOOKS = 4
_BETWEEN_LOOKS_S = 0.4
_REPAIR = "pycni repair makes again what running containers need"


class Reasons(ErrorList):
    """Reasons are the errors of steps that are tried (code 50), and what is said of traffic (code 51)."""

    def limit(self, look: Callable[[], Iterable[Impairment]]) -> None:
        """Ask what keeps running containers from their traffic, again and again before it is believed.

        An ADD or DEL at the same time looks for a moment as if something were missing.
        """
        found: list[Impairment] = []
        for attempt in range(_LOOKS):
            present = list(look())
            found = [each for each in present if not attempt or each in found]
            if not found:
                return
            if attempt < _LOOKS - 1:
                time.sleep(_BETWEEN_LOOKS_S)
        for what in dict.fromkeys(what for what, _ in found):
            names = [name for each, name in found if each == what and name]
            told = f"{what}: {_some(names)}" if names else what
            self.errors.append(CniError(Code.LIMITED_CONNECTIVITY, told))

    def raise_any(self) -> None:
        """Raise CniError 51 when running containers suffer, else 50; the first reason is the message."""
        if not self.errors:
            return
        limited = [each for each in self.errors if each.code == Code.LIMITED_CONNECTIVITY]
        first, *others = limited + [each for each in self.errors if each not in limited]
        told = [first.details, *map(str, others), _REPAIR if limited else ""]
        details = "; ".join(dict.fromkeys(filter(None, told)))
        code = Code.LIMITED_CONNECTIVITY if limited else Code.NOT_AVAILABLE
        raise CniError(code, first.msg, details) from first


@contextmanager
def trial() -> Iterator[Netlink]:
    """Be in a new, empty namespace, which is gone afterwards with all that was made there.

    Raises CniError 50 when none may be made: then none may be entered either.
    """
    try:
        with netns.fresh(), Netlink() as nl:
            yield nl
    except OSError as error:
        raise CniError(
            Code.NOT_AVAILABLE,
            f"network namespaces may not be entered here: {(error.strerror or str(error)).lower()}",
            "plugins need CAP_SYS_ADMIN and CAP_NET_ADMIN",
        ) from error


def has_ipv6() -> bool:
    """Tell whether the kernel has IPv6 at all."""
    return Path("/proc/net/if_inet6").exists()


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
