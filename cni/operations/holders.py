"""Records of where a holder of host ports lives, written by its ADD, and the proof that it has ended.

Who asks later may lack the right to look at a path, and may be in a mount namespace where the path means
something else. So only proof counts: the kernel has no host end of the container any more, or nothing is at
the path in the very mount namespace in which the path was noted. A host end that leads to a namespace in use
proves life, and outweighs the path.

Functions import what only a judgment needs: an ADD that writes a record has no use for it.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from cni.kernel import netns

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from cni.kernel.link import Link
    from cni.kernel.rtnetlink import Netlink

ALIVE, GONE, UNKNOWN = "alive", "gone", "unknown"
_MOST_LINKS = 16
_IFNAME_BYTES = 15


class Whereabouts(NamedTuple):
    """The namespaces and links of an attachment.

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
        if has_host_end is not None:
            return not has_host_end
        if not self._is_in_view():
            return False
        try:
            found = os.stat(self.netns)
        except ValueError:
            return True
        except OSError as error:
            return netns.is_absence(self.netns, error)
        # Another namespace, or a file that a lazy unmount has uncovered.
        return bool(self.identity) and self.identity != (found.st_dev, found.st_ino)

    def _is_in_view(self) -> bool:
        # Runtimes of releases that did not note it are services of the machine.
        return self.view == netns.own_view() if self.view else _is_machines_view()

    def _has_host_end(self) -> bool | None:
        """Return whether a host end is there, None where the kernel cannot prove either."""
        if not self.links or not self.is_here:
            return None
        from cni.kernel import link
        from cni.kernel.rtnetlink import Netlink

        with Netlink() as nl:
            # A bridge may have been removed while its former port lives.
            return _judge(nl, [link.find_by_index(nl, index) for index in self.links])


def judge(path: str, result: Mapping[str, Any]) -> str:
    """Return whether an attachment in a runtime's cache, which notes no mount namespace, is alive.

    A host end that the result names and that leads to a namespace in use proves that it is, whatever the
    caller sees at the path. That it is gone is proven by the path in the machine's own mount namespace.
    Elsewhere the kernel must also have no such host end any more, or the answer is `UNKNOWN`. The namespace
    of a `pycni run` that was killed is in no use, though it is still mounted.
    """
    from cni.operations import runs

    if runs.is_stale(path):
        return GONE
    has = has_host_end(result)
    if has or not netns.is_gone(path):
        return ALIVE
    return GONE if has is False or _is_machines_view() else UNKNOWN


def is_proven_gone(path: str, result: Mapping[str, Any]) -> bool:
    """Return whether an attachment in a runtime's cache is gone, as `judge` does."""
    return judge(path, result) == GONE


def has_host_end(result: Mapping[str, Any]) -> bool | None:
    """Return whether a host end that a result, as JSON, names is there and leads to a namespace in use.

    None where the kernel cannot prove either.
    """
    from cni.kernel import link
    from cni.kernel.rtnetlink import Netlink

    interfaces = result.get("interfaces")
    named = [each for each in interfaces if isinstance(each, dict)] if isinstance(interfaces, list) else []
    names = [str(each.get("name")) for each in named if not each.get("sandbox")]
    names = [each for each in names if 0 < len(each.encode()) <= _IFNAME_BYTES]
    if not names:
        return None
    with Netlink() as nl:
        return _judge(nl, [link.find(nl, name) for name in names[:_MOST_LINKS]])


def list_marked(network: str) -> frozenset[str]:
    """Return the aliases of the network's host ends that lead to a namespace in use.

    Each proves that an attachment lives, see `cni.marks`. Links of other suites have no alias.
    """
    from cni import marks
    from cni.kernel import link, veth
    from cni.kernel.rtnetlink import Netlink

    prefix = marks.alias_prefix(network)
    with Netlink() as nl:
        ends = [each for each in link.list_links(nl) if each.alias.startswith(prefix)]
        return frozenset(each.alias for each in ends if veth.is_other_end_alive(nl, each))


def _judge(nl: Netlink, links: Sequence[Link | None]) -> bool | None:
    """Return whether one of the links leads to a namespace in use; False if one has ended, else None."""
    from cni.kernel import veth

    ends = [each for each in links if each and each.peer and each.netnsid is not None]
    if any(veth.is_other_end_alive(nl, each) for each in ends):
        return True
    return False if ends or None in links else None


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
