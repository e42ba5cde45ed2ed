"""After a reboot, containers that are set up again have their names and rules, and nothing old answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.testing import warm
from tests.names_world import NO, Attached, Network, ask, records, servers, wait_for_end
from tests.netns.firewall_hosts import NFT, equipped

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

# As an administrator's unit loads it at each boot.
_RULES = """
table inet filter {
  chain input {
    type filter hook input priority 0; policy drop
    ct state established,related accept
    iif lo accept
    icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
  }
}
"""
EMPTY, KEPT = "/run is empty", "/run is kept"
_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot(host: Host, number: int, folder: Path) -> None:
    """Let the kernel say that this is another boot, and load the host's own rules."""
    file = folder / "boot_id"
    if not file.exists():
        file.touch()
        host.run(["mount", "--bind", str(file), _BOOT_ID])
    file.write_text(f"boot {number}\n")
    host.run(["nft", "-f", "-"], stdin=_RULES)


def shut_down(host: Host, containers: Iterable[Attached], run: str) -> None:
    """End all that a reboot ends: processes, namespaces, links, rules, and /run. /var/lib/cni stays."""
    warm.end(host.place)
    for each in containers:
        each.sandbox.delete()
    host.run(["ip", "link", "delete", "br1"])
    host.run(["nft", "flush", "ruleset"])
    if run == EMPTY:
        host.run(["sh", "-c", "rm -r /run/pycni/* && mkdir -m 0700 /run/pycni/warm"])


def release(host: Host, net: Network, attached: Attached) -> None:
    """Release the address of a container whose namespace is gone."""
    conf = net.bridge | {"prevResult": attached.added}
    host.plugin("bridge", "DEL", conf, netns="/run/netns/none", container_id=attached.container_id).must()


def rules(host: Host) -> list[str]:
    return host.run(["nft", "--stateless", "list", "ruleset"]).splitlines()


@pytest.mark.parametrize("run", [EMPTY, KEPT])
def test_names_and_rules_come_back_with_the_containers(host: Host, tmp_path: Path, run: str) -> None:
    net = Network(host)
    with equipped(host, NFT):
        boot(host, 1, tmp_path)
        before = rules(host)
        web, gone, late = net.attach("web", "www"), net.attach("gone", "old"), net.attach("late")
        made = rules(host)
        assert made != before
        assert ask(web.sandbox, "old")[1] == [gone.addresses[0]]
        [(guard, helper)] = servers(host)

        shut_down(host, [web, gone, late], run)
        boot(host, 2, tmp_path)
        assert servers(host) == []
        # A status before the first container starts nothing, and finds nothing.
        assert net.status().ok
        assert servers(host) == []
        # The runtime sets up a container again, under its ID, as podman does, and a new one.
        # It gives the lease of the earlier boot back before: here it does not look like one.
        release(host, net, web)
        web = net.attach("web", "www")
        other = net.attach("other")
        assert rules(host) == made
        [(new_guard, new_helper)] = servers(host)
        assert not {guard, helper} & {new_guard, new_helper}
        for name in ("web", "www", "WEB.net1.test"):
            for server in (net.gateway, net.gateway6):
                assert ask(other.sandbox, name, server=server) == ("NOERROR", [web.addresses[0]])
        assert ask(other.sandbox, "www", "AAAA", net.gateway6) == ("NOERROR", [web.addresses[1]])
        for name in ("gone", "old", "late"):
            assert ask(other.sandbox, name) == NO
        # The addresses belong to the containers that have them now, and to nobody else.
        named = {web.addresses[0]: "web.net1.test.", other.addresses[0]: "other.net1.test."}
        for number in range(2, 6):
            address = f"10.1.0.{number}"
            reverse = ".".join([*address.split(".")[::-1], "in-addr.arpa"])
            expected = ("NOERROR", [named[address]]) if address in named else NO
            assert ask(other.sandbox, reverse, "PTR") == expected
        assert {each["names"][0] for each in records(host)} == {"web", "other"}
        assert net.call("CHECK", web).ok
        # The runtime learns only now that a container has ended, and calls DEL, or GC.
        assert net.call("DEL", gone).ok
        assert net.status("GC", **{"cni.dev/valid-attachments": [valid(web), valid(other)]}).ok
        assert ask(other.sandbox, "web")[1] == [web.addresses[0]]
        assert rules(host) == made
        net.detach(web)
        assert ask(other.sandbox, "www") == NO
        net.detach(other)
        assert rules(host) == before
        wait_for_end(host)


def valid(attached: Attached) -> dict[str, str]:
    return {"containerID": attached.container_id, "ifname": attached.ifname}


def test_a_container_that_repair_finds_after_a_reboot_has_no_names(host: Host, tmp_path: Path) -> None:
    """Its namespace is gone: what is on record from the earlier boot neither answers nor opens the host."""
    net = Network(host)
    with equipped(host, NFT):
        boot(host, 1, tmp_path)
        before = rules(host)
        web = net.attach("web")
        shut_down(host, [web], KEPT)
        boot(host, 2, tmp_path)
        assert net.call("CHECK", web).code != 0
        assert net.call("PYCNI_REPAIR", web).code != 0
        # A record of the earlier boot is none, though the runtime still knows the container.
        assert net.status("GC", **{"cni.dev/valid-attachments": [valid(web)]}).ok
        assert records(host) == []
        assert rules(host) == before
        assert servers(host) == []
        release(host, net, web)
        new = net.attach("new")
        assert ask(new.sandbox, "web") == NO
        assert ask(new.sandbox, "2.0.1.10.in-addr.arpa", "PTR") == NO
        assert ask(host, "new")[1] == [new.addresses[0]]
