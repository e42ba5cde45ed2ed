"""Failures as CNI error objects: code, message, details (CNI spec 1.1.0, section 5, Error).

Nothing here does I/O. `CniError` is the exception that the skeleton expects. The skeleton answers any other
exception of a plugin as `Code.INTERNAL`.
"""

from __future__ import annotations

import errno
import os
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


# The remedy for an error of the system, where one is known.
_REMEDIES = {
    errno.EPERM: "Run as root, with the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN.",
    errno.EACCES: "Run as root, with the capabilities CAP_NET_ADMIN and CAP_SYS_ADMIN.",
    errno.EMFILE: 'Raise the limit of open files ("ulimit -n", or LimitNOFILE= of the unit).',
    errno.ENFILE: "Raise the sysctl fs.file-max, or close files.",
    errno.ENOMEM: "Free memory, or raise the memory limit.",
    errno.ENOSPC: "Free space on the disk.",
    errno.EDQUOT: "Free space on the disk, or raise the quota.",
    errno.EMSGSIZE: "Configure less at once, such as fewer published ports.",
    errno.EROFS: "Mount the file system with write access.",
}

# The kernel refuses an address or a route with EACCES then, which looks like a missing right.
_IPV6_IS_OFF = "IPv6 is disabled on "
IPV6_REMEDY = (
    "Set the sysctl net.ipv6.conf.default.disable_ipv6 to 0. Set that of an existing link to 0, too."
)


# A runtime logs an error, and shows it to people. It may quote what a pod's author has written.
_LONGEST_TEXT = 16 << 10


class Code(IntEnum):
    """Error codes: 1 to 99 from CNI spec 1.1.0 (section "Error"), 100 and up are this suite's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    UNKNOWN_CONTAINER = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    DECODING_FAILURE = 6
    INVALID_CONFIG = 7
    INVALID_NETNS = 8
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    LIMITED_CONNECTIVITY = 51
    KERNEL = 100
    FIREWALL = 101
    POOL = 102
    PORT_TAKEN = 103
    MISMATCH = 104
    ALREADY_EXISTS = 105
    STORE = 106
    INTERNAL = 999


class CniError(Exception):
    """A failure that the plugin reports to the runtime.

    `msg` is one line: what failed, on which object, why. `details` is the remedy, as an imperative.
    """

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(code, msg, details)
        self.code = int(code)
        self.msg = msg
        self.details = details

    def to_dict(self, cni_version: str = "") -> dict[str, object]:
        """Return the error object of the spec, without `details` and `cniVersion` if they are empty.

        Of longer texts the first 16,384 characters are in it.
        """
        shown: dict[str, object] = {"cniVersion": cni_version} if cni_version else {}
        shown |= {"code": self.code, "msg": _shortened(self.msg)}
        return shown | {"details": _shortened(self.details)} if self.details else shown

    def __str__(self) -> str:
        return f"{self.msg}: {self.details}" if self.details else self.msg

    def __reduce__(self) -> tuple[object, ...]:
        """Let a child process pass the error to its parent, whatever parameters a subclass has."""
        return _revive, (type(self), self.__dict__)


def _shortened(text: str) -> str:
    left_out = len(text) - _LONGEST_TEXT
    return f"{text[:_LONGEST_TEXT]}... ({left_out} more characters)" if left_out > 0 else text


def _revive(kind: type[CniError], members: dict[str, object]) -> CniError:
    error = kind.__new__(kind)
    error.__dict__.update(members)
    return error


class KernelError(CniError):
    """The kernel refused a request: `errno` is the reason, `said` the extended acknowledgement, if any."""

    def __init__(self, doing: str, number: int, said: str = "", details: str = "") -> None:
        reason = os.strerror(number).lower()
        remedy = IPV6_REMEDY if _IPV6_IS_OFF in said else _REMEDIES.get(number, "")
        remedies = [f"kernel: {said}" if said else "", remedy]
        super().__init__(Code.KERNEL, f"{doing}: {reason}", details or "; ".join(filter(None, remedies)))
        self.errno = number
        self.said = said
        # What pickle makes the exception from.
        self.args = (doing, number, said, details)


def of_system(error: OSError | MemoryError, place: str) -> CniError:
    """Return the CniError for an error of the system that no step expects: no memory, descriptor or right.

    `place` is the line that raised it.
    """
    number = errno.ENOMEM if isinstance(error, MemoryError) else error.errno or 0
    reason = os.strerror(number).lower() if number else str(error)
    name = None if isinstance(error, MemoryError) else error.filename
    where = f'"{os.fsdecode(name)}"' if isinstance(name, str | bytes) else "a system call"
    remedy = _REMEDIES.get(number, "Correct the host, then call again.")
    return CniError(Code.IO_FAILURE, f"{where} failed: {reason}", f"{remedy} Raised at {place}.")


class ErrorList:
    """Errors of steps that must all be tried, as those of DEL: collect them, raise once at the end."""

    def __init__(self) -> None:
        self.errors: list[CniError] = []

    def attempt(self, step: Callable[..., object], *args: object) -> None:
        """Run `step(*args)` and collect the CniError or OSError that it raises."""
        try:
            step(*args)
        except CniError as error:
            self.errors.append(error)
        except OSError as error:
            self.errors.append(CniError(Code.IO_FAILURE, str(error)))

    def raise_any(self) -> None:
        """Raise the first error, with the others in its details. Do nothing if there is none."""
        if not self.errors:
            return
        first, *others = self.errors
        details = "; ".join(filter(None, [first.details, *(f"also: {error}" for error in others)]))
        raise CniError(first.code, first.msg, details) from first
