"""A helper hands its sockets to one of another build: none is lost, at whatever point the caller ends."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from cni.service import control, message
from tests.helper import echo_serve as serve
from tests.helper.test_helper_guard import PORT, Systemd, _lose, _report, _serving, _start, place
from tests.support.patience import LONG_S

if TYPE_CHECKING:
    from cni.testing import Host

__all__ = ["place"]

HELPER = serve.HELPER
NEXT = HELPER._replace(version="next")


def _take_and_die() -> tuple[dict[str, Any], dict[str, Any]]:
    """Do what a caller of another build does until it is killed, with the sockets in its hand."""
    before = _start()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(LONG_S)
        connection.connect(HELPER.path)
        message.send(connection, {"build": "next", "take": True}, {})
        _, taken = message.receive(connection)
    assert set(taken) == {"", PORT}
    message.close(taken)
    # The earlier helper works on.
    assert _serving() == {str(before["helper"])}
    # Nobody has the sockets but itself, so that the next caller must be heard.
    NEXT.wake(until_done=True)
    after = _report()
    assert _serving() == {str(after["helper"])}
    return before, after


def test_a_caller_that_is_killed_with_the_sockets_loses_nothing(place: Host) -> None:
    before, after = place.call(_take_and_die)
    assert before["pid"] != after["pid"]
    assert (after["build"], after["holds"]) == ("next", [PORT])


def _upgrade_unit() -> tuple[int, dict[str, Any], dict[str, Any]]:
    systemd = Systemd()
    services = [systemd.wake()]
    before = _report()

    def upgrade() -> None:
        if (caller := os.fork()) == 0:
            NEXT.wake(until_done=True)
            os._exit(0)
        # Systemd starts the service again when all of it has ended.
        assert os.waitpid(services[0], 0)[1] == 0
        services.append(systemd.serve())
        assert os.waitpid(caller, 0)[1] == 0

    lost, _ = _lose(upgrade)
    after = _report()
    assert _serving() == {str(after["helper"])}
    control.stop(control.find())
    os.waitpid(services[1], 0)
    return lost, before, after


def test_a_unit_that_is_started_again_loses_no_datagram(place: Host) -> None:
    lost, before, after = place.call(_upgrade_unit)
    assert lost == 0
    assert (after["unit"], after["holds"]) == (True, [PORT])
    assert before["pid"] != after["pid"]


def _upgrade_with_many() -> tuple[int, set[str], set[str]]:
    """A packet to another process has at most 253 descriptors."""
    ports = {PORT, *map(str, range(20_000, 20_300))}
    serve.PORTS.write_text(" ".join(ports))
    before = _start()
    lost, _ = _lose(lambda: NEXT.wake(until_done=True))
    after = _report()
    assert _serving() == {str(after["helper"])} != {str(before["helper"])}
    return lost, ports, set(after["holds"])


def test_any_number_of_sockets_is_handed_over(place: Host) -> None:
    lost, ports, held = place.call(_upgrade_with_many)
    assert (lost, held) == (0, ports)
