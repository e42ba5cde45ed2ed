"""Remove a link, and continue when the kernel has announced that it is gone, if the caller asks for it."""

from __future__ import annotations

import errno
from contextlib import ExitStack, nullcontext
from typing import TYPE_CHECKING

from cni.errors import KernelError
from cni.faults import point
from cni.kernel import rtnetlink
from cni.kernel.link import HEAD, removal, remove
from cni.kernel.rtnetlink import RTMGRP_LINK, Message, Netlink

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cni.kernel.netns import Netns

# The variable that says when DEL returns: when the link is gone, or when the kernel has acknowledged its
# removal.
ANSWER_VARIABLE = "PYCNI_DEL"
GONE, ACKNOWLEDGED = "gone", "ack"
_LOOK_AGAIN_S = 0.02


def is_removal(kind: int, body: bytes, index: int) -> bool:
    """Return whether a message is RTM_DELLINK for this index, and not a port's removal from its bridge."""
    if kind != rtnetlink.RTM_DELLINK:
        return False
    family, _, seen, _, _ = HEAD.unpack_from(body)
    return family != rtnetlink.AF_BRIDGE and bool(seen == index)


def is_early(env: Mapping[str, str]) -> bool:
    """Return whether DEL continues before the kernel acknowledges a removal.

    Only if the environment asks for it: a process that exits after its answer waits for the kernel anyway.
    """
    return env.get(ANSWER_VARIABLE) == GONE


def remove_in(ns: Netns | None, name: str, index: int, *, early: bool) -> bool:
    """Remove the link with this index; return False if there is none. Raise KernelError.

    It is a link of the namespace `ns`, or of the host without one. `name` is for messages only: the
    container may have renamed the link. With `early`, return as soon as the kernel has announced that the
    link is gone. The kernel acknowledges the removal of a veth pair after 17 to 20 ms, when grace periods
    have passed and memory has been freed. After about 1 ms both ends are unlisted and the kernel announces
    it: the pair can neither be seen nor used any more. A DEL that continues then takes 3 ms instead of 20.
    """
    if early:
        return _remove_early(ns, name, index)
    with Netlink(ns) as nl:
        return remove(nl, name, index)


def _remove_early(ns: Netns | None, name: str, index: int) -> bool:
    # Only DEL in a worker needs it.
    from cni.kernel import background

    with ExitStack() as listening, ExitStack() as stack:
        with ns.entered() if ns else nullcontext():
            listener = listening.enter_context(Netlink(groups=RTMGRP_LINK))
            sender = stack.enter_context(Netlink())
        request = Removal(sender, removal(name, index), stack.pop_all())
        background.start(request.run)
        while not request.is_over:
            if any(is_removal(kind, body, index) for kind, body in listener.heard(_LOOK_AGAIN_S)):
                point("netlink.gone")
                return True
    # The kernel has acknowledged or refused, and no announcement came: there was none, or it was dropped.
    if request.error is None:
        point("netlink.gone")
        return True
    if isinstance(request.error, KernelError) and request.error.errno == errno.ENODEV:
        return False
    raise request.error


class Removal:
    """A request that another thread sends; it closes `stack`, the socket among it."""

    def __init__(self, sender: Netlink, message: Message, stack: ExitStack) -> None:
        self._sender = sender
        self._message = message
        self._stack = stack
        self.is_over = False
        self.error: Exception | None = None

    def run(self) -> None:
        """Send the request and wait for its acknowledgement; raise nothing."""
        try:
            with self._stack:
                self._sender.batch([self._message])
        except Exception as error:  # noqa: BLE001 - the thread that waits raises it
            self.error = error
        finally:
            # Also after an error: the other thread waits for this.
            self.is_over = True
