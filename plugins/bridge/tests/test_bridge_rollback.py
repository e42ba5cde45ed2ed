"""An ADD that fails leaves links, addresses, routes, rules and files as they were."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Host

FULL: dict[str, Any] = {"isDefaultGateway": True, "ipMasq": True, "macspoofchk": True, "promiscMode": True}
NO_WAY = {"type": "host-local", "subnet": "10.1.0.0/24", "routes": [{"dst": "10.9.0.0/16", "gw": "99.0.0.1"}]}

FAILURES: dict[str, tuple[dict[str, Any], str]] = {
    "an IPAM that is not there": ({"ipam": {"type": "nowhere"}}, 'failed to find plugin "nowhere" in path'),
    "an IPAM that refuses": ({"ipam": {"type": "host-local"}}, "no IP ranges specified"),
    "an exhausted pool": (
        {
            "ipam": {
                "type": "host-local",
                "subnet": "10.1.0.0/30",
                "rangeStart": "10.1.0.1",
                "rangeEnd": "10.1.0.1",
            }
        },
        "failed to allocate for range 0: no IP addresses available",
    ),
    "a route that cannot be": ({"ipam": NO_WAY}, "failed to add route '10.9.0.0/16 via 99.0.0.1 dev eth0"),
    "an unknown backend": ({"ipMasqBackend": "foo"}, 'unknown ipmasq backend "foo"'),
    "a VLAN on this kernel": ({"vlan": 5}, 'could not add "br0": operation not supported'),
    "an MTU too large": ({"mtu": 70000}, '"mtu" must be a whole number from 0 to 65535, got 70000'),
    "an MTU too small for a veth": ({"mtu": 5}, "could not add"),
}


def failing(net: Network, message: str, **options: Any) -> None:
    host = net.host
    before = host.snapshot()
    answer = net.call("ADD", "c1", **options)
    assert answer.msg.startswith(message), answer
    assert answer.stderr == ""
    assert before.differences(host.snapshot()) == []


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param(
            *failure,
            id=name,
            marks=[pytest.mark.kernel_without("vlan_filtering")] if "vlan" in failure[0] else [],
        )
        for name, failure in FAILURES.items()
    ],
)
def test_nothing_is_left_on_a_fresh_host(host: Host, keys: dict[str, Any], message: str) -> None:
    host.sandbox("c1")
    failing(Network(host, **(FULL | keys)), message)


@pytest.mark.parametrize("case", ["an IPAM that refuses", "a route that cannot be"])
def test_other_containers_of_the_bridge_are_not_touched(host: Host, case: str) -> None:
    Network(host, **FULL).add("c0")
    host.sandbox("c1")
    keys, message = FAILURES[case]
    failing(Network(host, **(FULL | keys)), message)


def test_promiscuous_mode_is_taken_back_beside_containers_that_do_without(host: Host) -> None:
    Network(host).add("c0")
    host.sandbox("c1")
    failing(Network(host, promiscMode=True, ipam={"type": "nowhere"}), "failed to find plugin")


def test_an_ifname_that_is_taken_is_reported(host: Host) -> None:
    box = host.sandbox("c1")
    box.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "other"])
    failing(Network(host, **FULL), 'container veth name ("eth0") peer provided ("veth')


def test_a_second_add_of_the_same_attachment_does_not_harm_the_first(host: Host) -> None:
    net = Network(host, **FULL)
    one = net.add("c1")
    failing(net, 'container veth name ("eth0") peer provided ("veth')
    net.check(one).must()


def test_a_second_add_from_another_namespace_does_not_harm_the_first(host: Host) -> None:
    net = Network(host, **(FULL | {"macspoofchk": False}))
    one = net.add("c1")
    other = host.sandbox("c1-again")
    failing(net, "failed to allocate for range 0: 10.1.0.2 has been allocated to c1", netns=other)
    with one.sandbox.serve(80):
        assert host.reaches(one.address, 80, timeout_s=10)


def test_a_bad_mac_address_is_refused_before_anything_is_made(host: Host) -> None:
    host.sandbox("c1")
    keys = {"runtimeConfig": {"mac": "zz"}}
    failing(Network(host), "failed to make veth pair: address zz: invalid MAC address", keys=keys)


@pytest.mark.parametrize("netns", ["/run/netns/gone", "/etc/hostname"])
def test_a_namespace_that_is_none_is_refused_before_anything_is_made(host: Host, netns: str) -> None:
    failing(Network(host), f'failed to open netns "{netns}"', netns=netns)


def test_the_hosts_own_namespace_is_refused(host: Host) -> None:
    failing(Network(host), "plugin's netns and netns from CNI_NETNS", netns="/proc/self/ns/net")


CUT_SHORT = """
cd /run
mkdir bin
cat > bin/slow <<'END'
#!/bin/sh
[ $CNI_COMMAND = ADD ] || exit 0
echo $$ > /run/bin/pid
exec sleep 60 2>/dev/null
END
chmod +x bin/slow
cat > conf
export CNI_COMMAND=ADD CNI_CONTAINERID=c1 CNI_NETNS=/run/netns/c1 CNI_IFNAME=eth0 CNI_PATH=/run/bin
BRIDGE < conf & plugin=$!
until [ -s bin/pid ]; do sleep 0.02; done
kill -SIGNAL $plugin; wait $plugin
kill $(cat bin/pid) 2>/dev/null
rm -r bin conf
"""


@pytest.mark.parametrize("signal", ["TERM", "KILL"])
def test_an_add_that_is_cut_short_can_be_cleaned_up(host: Host, signal: str) -> None:
    host.sandbox("c1")
    net = Network(host, ipam={"type": "slow"})
    Network(host, name="net0", ipam={}).add("c0")
    before = host.snapshot()
    script = CUT_SHORT.replace("BRIDGE", str(host.bindir / "bridge")).replace("SIGNAL", signal)
    done = host.place.run(["sh", "-c", script], json.dumps(net.conf), check=False)
    if signal == "TERM":
        answer = json.loads(done.stdout)
        assert (answer["code"], answer["msg"]) == (11, "interrupted by SIGTERM")
    else:
        net.delete("c1", keys={"ipam": {}})
    assert before.differences(host.snapshot()) == []
