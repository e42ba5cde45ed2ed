"""The server of the frozen suite, which has the libraries of its bundle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.dns.client import HELPER, A, ask
from tests.names_world import Network, fill, pss_kib, servers
from tests.netns.bundled_host import empty_opt, install

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

__all__ = ["empty_opt"]


def _own_key() -> str:
    return HELPER.key


def test_5000_names_take_22_mib(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    install(host, bundle)
    host.run(["ip", "link", "set", "lo", "up"])
    host.run(["ip", "addr", "add", "10.149.0.1/16", "dev", "lo"])
    host.call(fill, 50, 5000, host.call(_own_key))
    # The plugin of the bundle wakes the server of the bundle.
    Network(host).attach("web")
    answer = host.call(ask, "10.149.0.1", "name-4999.n49.test", A)
    assert answer is not None
    assert answer.addresses == ("10.149.24.201",)
    [(guard, helper)] = servers(host)
    assert (pss_kib(guard) + pss_kib(helper)) / 1024 < 22
