"""A server on a host with a system bus has the library for it before it forks; elsewhere it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.warm.conftest import WarmHost

LIBRARY = "jeepney.io.blocking"


def test_the_library_for_the_bus_is_loaded_where_there_is_a_bus(warm_host: WarmHost) -> None:
    warm_host.run(["mkdir", "-p", "/run/dbus"])
    warm_host.run(["touch", "/run/dbus/system_bus_socket"])
    assert LIBRARY in warm_host.facts()["modules"].split()


def test_the_library_for_the_bus_is_not_loaded_elsewhere(warm_host: WarmHost) -> None:
    warm_host.run(["rm", "-f", "/run/dbus/system_bus_socket"])
    assert LIBRARY not in warm_host.facts()["modules"].split()
