"""Where a holder of host ports lives, as its ADD has noted it, and the proof that it lives no more.

Who asks later may lack the right to look at a path, and may be in a mount namespace where the path means
something else. So only proof counts: the kernel has no host end of the container any more, or nothing is at
the path in the very mount namespace in which the path was noted.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cni import netns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ESRCH})
_MOST_LINKS = 16
_REMOVED_WITHIN_S = 1


class Whereabouts(NamedTuple):
    """Where an attachment lives.

    `identity` is device and inode of its namespace, () where the ADD could not look. `view` is where the path
    `netns` is meant, "" in a record of a release that did not note it. `links` are indices of links in the
    network namespace `host`: the container's host end, and others that its result names.
    """

    netns: str
    identity: tuple[int, ...] = ()
    view: str = ""
    host: int = 0
    links: tuple[int, ...] = ()

    @classmethod
    def note(cls, path: str, host_links: Iterable[str] = ()) -> Self:
        """Note where an attachment lives now; `host_links` names links of its result on the host."""
        return cls(path, identify(path), netns.own_view(), netns.own_inode(), tuple(_indices(host_links)))

    @property
    def is_here(self) -> bool:
        """Whether its rules and links are in the caller's network namespace, as far as that was noted."""
        return self.host in {0, netns.own_inode()}

    def is_gone(self) -> bool:
        """Return whether there is proof that the attachment is gone."""
        has_host_end = self._has_host_end()
        if has_host_end is False:
            return True
        if not self._is_in_view():
            return False
        try:
            found = os.stat(self.netns)
        except ValueError:
            return True
        except OSError as error:
            return error.errno in _ABSENT
        # Another namespace, or a file that a lazy unmount has uncovered: the old one may live on elsewhere.
        is_another = bool(self.identity) and self.identity != (found.st_dev, found.st_ino)
        return is_another and not has_host_end

    def _is_in_view(self) -> bool:
        # Runtimes of releases that did not note it are services of the machine.
        return self.view == netns.own_view() if self.view else _is_machines_view()

    def _has_host_end(self) -> bool | None:
        """Return whether a host end is there, None where the kernel cannot prove either."""
        if not self.links or not self.is_here:
            return None
        from cni import link
        from cni.netlink import Netlink

        with Netlink() as nl:
            found = [link.find_by_index(nl, index) for index in self.links]
        # A bridge may have been removed while its former port lives.
        if any(each and each.peer for each in found):
            return True
        return False if None in found else None


def is_proven_gone(path: str, result: Mapping[str, Any]) -> bool:
    """Return whether an attachment in a runtime's cache, which notes no mount namespace, is gone.

    The path alone proves it in the machine's own mount namespace. Elsewhere the kernel must have none of the
    host ends that the result names. It may take a moment to remove one.
    """
    if not netns.is_gone(path):
        return False
    if _is_machines_view():
        return True
    deadline = time.monotonic() + _REMOVED_WITHIN_S
    while has_host_end(result):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def has_host_end(result: Mapping[str, Any]) -> bool:
    """Return whether a link of a result, as JSON, is on the host as one end of a pair."""
    from cni import link
    from cni.netlink import Netlink

    interfaces = result.get("interfaces")
    named = [each for each in interfaces if isinstance(each, dict)] if isinstance(interfaces, list) else []
    names = [str(each.get("name")) for each in named if not each.get("sandbox")]
    with Netlink() as nl:
        found = [link.find(nl, name) for name in names[:_MOST_LINKS]]
    return any(each and each.peer for each in found)


def _is_machines_view() -> bool:
    with suppress(OSError):
        return os.path.samestat(os.stat("/proc/self/ns/mnt"), os.stat("/proc/1/ns/mnt"))
    return False


def identify(path: str) -> tuple[int, ...]:
    """Return device and inode of what is at a path, () where the caller cannot look."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return ()
    return found.st_dev, found.st_ino


def _indices(names: Iterable[str]) -> list[int]:
    found = []
    for name in list(names)[:_MOST_LINKS]:
        # One that cannot be found proves nothing later.
        with suppress(OSError, ValueError):
            found.append(socket.if_nametoindex(name))
    return found
