"""STATUS: the reasons why an ADD would fail or containers have lost their network, in one error."""

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

    # The sentence, and the object that it is about; "" if there is only one.
    Impairment = tuple[str, str]

_LOOKS = 4
_BETWEEN_LOOKS_S = 0.4
_REPAIR = "pycni repair makes again what running containers need"


class Reasons(ErrorList):
    """The errors of trial steps (code 50), and impairments of running containers (code 51)."""

    def limit(self, look: Callable[[], Iterable[Impairment]]) -> None:
        """Add the impairments that `look` yields several times in a row.

        During an ADD or DEL, something may be missing for a moment.
        """
        found: list[Impairment] = []
        for attempt in range(_LOOKS):
            present = list(look())
            found = [each for each in present if not attempt or each in found]
            if not found:
                return
            if attempt < _LOOKS - 1:
                time.sleep(_BETWEEN_LOOKS_S)
        for sentence in dict.fromkeys(sentence for sentence, _ in found):
            names = [name for each, name in found if each == sentence and name]
            text = f"{sentence}: {_some(names)}" if names else sentence
            self.errors.append(CniError(Code.LIMITED_CONNECTIVITY, text))

    def raise_any(self) -> None:
        """Raise CniError 51 if running containers are impaired, otherwise 50, with the first reason."""
        if not self.errors:
            return
        limited = [each for each in self.errors if each.code == Code.LIMITED_CONNECTIVITY]
        first, *others = limited + [each for each in self.errors if each not in limited]
        texts = [first.details, *map(str, others), _REPAIR if limited else ""]
        details = "; ".join(dict.fromkeys(filter(None, texts)))
        code = Code.LIMITED_CONNECTIVITY if limited else Code.NOT_AVAILABLE
        raise CniError(code, first.msg, details) from first


@contextmanager
def trial() -> Iterator[Netlink]:
    """Enter a new, empty namespace, which is removed afterwards.

    Raises CniError 50 if none may be created: then none may be entered either.
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
    """Return whether the kernel has IPv6."""
    return Path("/proc/net/if_inet6").exists()


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
