"""The verbs of tuning behind the bridge: what is set, compared, repaired and restored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

MAC = "02:00:00:00:00:77"
SYSCTLS: dict[str, str] = {"net.core.somaxconn": "500", "net/ipv4/conf/IFNAME/arp_filter": "1"}
ALL: dict[str, Any] = {
    "mac": MAC,
    "mtu": 1300,
    "promisc": True,
    "allmulti": True,
    "txQLen": 77,
    "sysctl": SYSCTLS,
}


def host_ends(host: Host) -> list[str]:
    """Return the names of the bridge's ports."""
    return [each["ifname"] for each in host.json(["ip", "-j", "link", "show", "master", "br0"])]


class Tuned:
    """A container behind the bridge, and calls of tuning for it."""

    def __init__(self, host: Host, version: str = "1.1.0", name: str = "c1", **bridge: Any) -> None:
        self.host = host
        self.name = name
        self.net = Network(host, isGateway=True, cniVersion=version, **bridge)
        attached = self.net.add(name)
        self.sandbox: Sandbox = attached.sandbox
        self.host_end = host_ends(host)[0]
        self.result: dict[str, Any] = attached.answer.json

    def call(self, verb: str, conf: dict[str, Any], **options: Any) -> Answer:
        """Call tuning with these keys and the result so far."""
        keys = {"cniVersion": self.net.conf["cniVersion"], "name": "net1", "type": "tuning"}
        keys |= {"prevResult": self.result} | conf
        given: dict[str, Any] = {"netns": self.sandbox, "container_id": self.name} | options
        return self.host.plugin("tuning", verb, keys, **given)

    def add(self, conf: dict[str, Any], **options: Any) -> dict[str, Any]:
        """Call ADD, and keep its result for the next calls."""
        self.result = self.call("ADD", conf, **options).must()
        return self.result

    def interface(self) -> dict[str, Any]:
        """Return the container's interface as `ip` shows it."""
        [shown] = self.sandbox.json(["ip", "-j", "-d", "link", "show", "eth0"])
        assert isinstance(shown, dict)
        return shown

    def state(self) -> dict[str, Any]:
        """Return all that ALL sets."""
        shown = self.interface()
        [end] = self.host.json(["ip", "-j", "link", "show", self.host_end])
        return {
            "mac": shown["address"],
            "mtu": (shown["mtu"], end["mtu"]),
            "promisc": "PROMISC" in shown["flags"],
            "allmulti": "ALLMULTI" in shown["flags"],
            "txQLen": shown["txqlen"],
            "sysctl": [self.sysctl("net/core/somaxconn"), self.sysctl("net/ipv4/conf/eth0/arp_filter")],
        }

    def sysctl(self, key: str, value: str = "") -> str:
        """Return a sysctl of the container, after setting it to `value` if there is one."""
        if value:
            self.sandbox.run(["sh", "-c", f"echo '{value}' > /proc/sys/{key}"])
        return self.sandbox.run(["cat", f"/proc/sys/{key}"]).strip()

    def records(self) -> list[str]:
        """Return the records of attachments, and what is in the folder of the Go plugin."""
        folders = ["/run/pycni/attachments", "/run/cni/tuning"]
        return self.host.run(["find", *folders, "-type", "f"], check=False).split()


SET = {
    "mac": MAC,
    "mtu": (1300, 1300),
    "promisc": True,
    "allmulti": True,
    "txQLen": 77,
    "sysctl": ["500", "1"],
}


@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_everything_is_set_checked_and_restored(host: Host, version: str) -> None:
    one = Tuned(host, version)
    before = one.state()
    earlier = one.result
    result = one.add(ALL)
    assert one.state() == SET
    if version != "0.2.0":
        [_, end, inside] = result["interfaces"]
        assert (inside["mac"], end["mac"]) == (MAC, earlier["interfaces"][1]["mac"])
        mtus = [each.get("mtu") for each in (end, inside)]
        assert mtus == ([1300, 1300] if version == "1.1.0" else [None, None])
    assert len(one.records()) == 1
    if version not in {"0.2.0", "0.3.1"}:
        one.call("CHECK", ALL).must()
        # Neither the bridge's CHECK nor its repair objects to what a later plugin has set.
        one.net.call("CHECK", "c1", keys={"prevResult": result}).must()
        repaired = one.net.call("PYCNI_REPAIR", "c1", keys={"prevResult": result}).must()
        assert repaired["repaired"] == []
    for _ in range(2):
        one.call("DEL", ALL).must()
        assert one.state() == before
        assert one.records() == []


def test_a_configuration_without_settings_passes_the_result_on(host: Host) -> None:
    one = Tuned(host)
    before = one.state()
    earlier = one.result
    assert one.add({"capabilities": {"mac": True}}) == earlier
    assert one.state() == before
    assert one.records() == []
    one.call("CHECK", {}).must()
    one.call("DEL", {}).must()


def change(one: Tuned, key: str) -> None:
    """Change what ADD has set, as a program in the container can."""
    commands = {
        "mac": "address 02:00:00:00:00:99",
        "mtu": "mtu 1200",
        "promisc": "promisc off",
        "allmulti": "allmulticast off",
        "txQLen": "txqueuelen 5",
    }
    if key == "sysctl":
        one.sysctl("net/core/somaxconn", "99")
    elif key == "host end":
        one.host.run(["ip", "link", "set", one.host_end, "mtu", "1200"])
    else:
        one.sandbox.run(["ip", "link", "set", "eth0", *commands[key].split()])


MESSAGES = {
    "mac": f"Error: Tuning configured Ethernet of eth0 is {MAC}, current value is 02:00:00:00:00:99",
    "mtu": "Error: Tuning configured MTU of eth0 is 1300, current value is 1200",
    "promisc": "Error: Tuning link eth0 configured promisc is true, current value is 0",
    "allmulti": "Error: Tuning configured all-multicast mode of eth0 is true, current value is false",
    "txQLen": "Error: Tuning configured Transmit Queue Length of eth0 is 77, current value is 5",
    "host end": "MTU of the host end HOST_END is 1200, not 1300",
    "sysctl": ("Error: Tuning configured value of /proc/sys/net/core/somaxconn is 500, current value is 99"),
}


def test_check_names_each_difference_and_repair_sets_it_again(host: Host) -> None:
    one = Tuned(host)
    one.add(ALL)
    for key, text in MESSAGES.items():
        change(one, key)
        message = text.replace("HOST_END", one.host_end)
        answer = one.call("CHECK", ALL)
        assert (answer.code, answer.msg) == (104, message)
        repaired = one.call("PYCNI_REPAIR", ALL).must()
        assert (len(repaired["repaired"]), repaired["failed"]) == (1, [])
        one.call("CHECK", ALL).must()
    for key in MESSAGES:
        change(one, key)
    answer = one.call("CHECK", ALL)
    told = f"{answer.msg}; {answer.json['details']}"
    assert [each for each in MESSAGES.values() if each.replace("HOST_END", one.host_end) not in told] == []
    assert one.call("PYCNI_REPAIR", ALL).must()["failed"] == []
    assert one.state() == SET
    assert one.call("PYCNI_REPAIR", ALL).must() == {"repaired": [], "failed": []}
    one.sandbox.run(["ip", "link", "set", "eth0", "down"])
    one.sandbox.run(["ip", "link", "set", "eth0", "name", "other"])
    answer = one.call("CHECK", ALL)
    assert (answer.code, answer.msg) == (104, "Cannot find container link eth0")
    one.call("DEL", ALL).must()


PRECEDENCE: list[tuple[dict[str, Any], str, str]] = [
    ({"mac": "02:00:00:00:00:01"}, "", "02:00:00:00:00:01"),
    ({"mac": "02:00:00:00:00:01"}, "IgnoreUnknown=1;MAC=02-00-00-00-00-02;K=v", "02:00:00:00:00:02"),
    ({"runtimeConfig": {"mac": "0200.0000.0003"}}, "MAC=02:00:00:00:00:02", "02:00:00:00:00:03"),
    (
        {"runtimeConfig": {"mac": "02:00:00:00:00:03"}, "args": {"cni": {"mac": "02:00:00:00:00:0A"}}},
        "MAC=02:00:00:00:00:02",
        "02:00:00:00:00:0a",
    ),
]


def test_the_precedence_of_mac_addresses_is_that_of_go(host: Host) -> None:
    one = Tuned(host)
    own = one.interface()["address"]
    for conf, args, mac in PRECEDENCE:
        result = one.add({"mac": "02:00:00:00:00:01"} | conf, args=args)
        assert one.interface()["address"] == result["interfaces"][2]["mac"] == mac
        one.call("CHECK", conf, args=args).must()
    # "" in args.cni is a value: the address is not changed.
    one.call("DEL", {}).must()
    assert one.interface()["address"] == own
    one.add({"mac": MAC, "args": {"cni": {"mac": ""}}})
    assert one.interface()["address"] == own


def test_args_replace_the_keys_of_the_configuration(host: Host) -> None:
    one = Tuned(host)
    args: dict[str, Any] = {
        "mtu": 1250,
        "promisc": False,
        "allmulti": False,
        "txQLen": 9,
        "mac": "02:00:00:00:00:02",
    }
    args["sysctl"] = {"net/core/somaxconn": "400", "net.ipv4.ip_default_ttl": "55"}
    one.sandbox.run(["ip", "link", "set", "eth0", "promisc", "on"])
    conf = ALL | {"args": {"cni": args}}
    before = one.state()
    one.add(conf)
    assert one.state() == {
        "mac": "02:00:00:00:00:02",
        "mtu": (1250, 1250),
        "promisc": False,
        "allmulti": False,
        "txQLen": 9,
        "sysctl": ["400", "1"],
    }
    assert one.sysctl("net/ipv4/ip_default_ttl") == "55"
    one.call("CHECK", conf).must()
    one.call("DEL", conf).must()
    assert one.state() == before
    # Without a "sysctl" beside it: the Go plugin crashes.
    only = {"args": {"cni": {"sysctl": {"net.core.somaxconn": "400"}}}}
    one.add(only)
    assert one.sysctl("net/core/somaxconn") == "400"
    one.call("DEL", only).must()


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_without_a_result_it_is_an_error(host: Host, verb: str) -> None:
    one = Tuned(host)
    answer = one.call(verb, ALL | {"prevResult": None})
    assert (answer.code, answer.msg) == (7, "Required prevResult missing")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mac": "zz"}, "invalid args zz for MAC addr: address zz: invalid MAC address"),
    ({"mtu": 70000}, 'could not set the MTU of "eth0" to 70000: invalid argument'),
    ({"mtu": 10}, 'could not set the MTU of "eth0" to 10: invalid argument'),
    ({"mtu": -5}, '"mtu" must be a whole number from 0 to 2147483647, got -5'),
    (
        ALL | {"sysctl": SYSCTLS | {"net.ipv4.nothing": "1"}},
        "could not set sysctl net/ipv4/nothing to 1: no such file or directory",
    ),
    (
        ALL | {"sysctl": SYSCTLS | {"net.ipv4.ip_default_ttl": "no"}},
        "could not set sysctl net/ipv4/ip_default_ttl to no: invalid argument",
    ),
    ({"sysctl": {"kernel.pid_max": "1"}}, 'invalid net sysctl key: "kernel.pid_max"'),
    (
        {"sysctl": {"net.core.somaxconn": "1", "net/core/somaxconn": "2"}},
        "duplicated sysctl keys are not allowed",
    ),
]


def test_a_refused_add_leaves_everything_as_it_was(host: Host) -> None:
    one = Tuned(host)
    before = one.state()
    for conf, message in REFUSED:
        answer = one.call("ADD", conf)
        assert (answer.status, answer.msg) == (1, message), conf
        assert one.state() == before
        assert one.records() == []


def test_a_key_that_stands_twice_is_refused(host: Host) -> None:
    one = Tuned(host)
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "tuning", "prevResult": None}
    text = json.dumps(conf)[:-1] + ', "Sysctl": {"net.core.somaxconn": "1", "net.core.somaxconn": "2"}}'
    answer = one.host.plugin("tuning", "ADD", text.replace("null", json.dumps(one.result)), netns=one.sandbox)
    assert (answer.code, answer.msg) == (7, "duplicated sysctl keys are not allowed")


def test_values_that_the_kernel_shows_otherwise_pass_check(host: Host) -> None:
    one = Tuned(host)
    sysctls = {
        "net.ipv4.conf.IFNAME.arp_filter": "0x1",
        "net.ipv4.ip_local_port_range": "20000 40000",
        "net.ipv4.ip_local_reserved_ports": "21000,21001,21002",
        "net.ipv4.route.flush": "1",
    }
    one.sysctl("net/ipv4/ip_local_reserved_ports", "8080")
    one.add({"sysctl": sysctls})
    assert one.sysctl("net/ipv4/ip_local_reserved_ports") == "21000-21002"
    one.call("CHECK", {"sysctl": sysctls}).must()
    # The value counts that the configuration had at ADD.
    assert one.call("CHECK", {"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "0"}}).code == 104
    one.call("DEL", {"sysctl": sysctls}).must()
    assert one.sysctl("net/ipv4/ip_local_reserved_ports") == "8080"
    # A list is emptied by an empty value.
    one.add({"sysctl": {"net.ipv4.ip_local_reserved_ports": ""}})
    assert one.sysctl("net/ipv4/ip_local_reserved_ports") == ""
    one.call("DEL", {}).must()
    assert one.sysctl("net/ipv4/ip_local_reserved_ports") == "8080"


def test_an_interface_may_have_dots_in_its_name(host: Host) -> None:
    net = Network(host)
    sandbox = host.sandbox("c1")
    result = net.call("ADD", "c1", ifname="eth0.5").must()
    conf = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", "prevResult": result}
    keys = ["net.ipv4.conf.eth0/5.arp_filter", "net.ipv4.conf.IFNAME.arp_announce"]
    conf["sysctl"] = {keys[0]: "1", keys[1]: "2", "net/ipv4/conf/eth0.5/arp_ignore": "1"}
    host.plugin("tuning", "ADD", conf, netns=sandbox, ifname="eth0.5").must()
    folder = "/proc/sys/net/ipv4/conf/eth0.5"
    shown = sandbox.run(
        ["cat", *(f"{folder}/{each}" for each in ("arp_filter", "arp_announce", "arp_ignore"))]
    )
    assert shown.split() == ["1", "2", "1"]


def test_two_networks_of_one_container_do_not_restore_each_others_values(host: Host) -> None:
    one = Tuned(host)
    one.add({"sysctl": {"net.core.somaxconn": "500"}})
    one.add({"name": "net2", "sysctl": {"net.core.somaxconn": "600"}}, ifname="eth1")
    one.call("DEL", {})
    assert one.sysctl("net/core/somaxconn") == "600"
    one.call("DEL", {"name": "net2"}, ifname="eth1")
    assert one.sysctl("net/core/somaxconn") == "500"


def test_an_add_that_is_repeated_keeps_the_first_values(host: Host) -> None:
    one = Tuned(host)
    before = one.state()
    for mtu in (1300, 1350):
        one.add(ALL | {"mtu": mtu})
    one.call("DEL", ALL).must()
    assert one.state() == before


def test_the_values_of_another_interface_are_not_restored(host: Host) -> None:
    """The interface was replaced without a DEL of tuning."""
    one = Tuned(host)
    one.add(ALL)
    one.net.delete("c1")
    one.result = one.net.call("ADD", "c1").must()
    [one.host_end] = host_ends(host)
    state = one.state()
    one.call("DEL", ALL).must()
    assert one.state() | {"sysctl": None} == state | {"sysctl": None}
    assert one.sysctl("net/core/somaxconn") != "500"
    assert one.records() == []


def test_gc_restores_and_drops_what_is_not_valid(host: Host) -> None:
    one = Tuned(host)
    before = one.state()
    one.add(ALL)
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    for kept, state in ((valid, SET), ([], before)):
        keys = {"cni.dev/valid-attachments": kept, "prevResult": None}
        one.call("GC", keys, container_id="", ifname="").must()
        assert one.state() == state
        assert len(one.records()) == len(kept)
    one.add(ALL)
    one.sandbox.delete()
    shown = one.call("PYCNI_GC_PLAN", keys, container_id="", ifname="").must()
    assert [each["kind"] for each in shown["stale"]] == ["record"]
    one.call("GC", keys, container_id="", ifname="").must()
    assert one.records() == []


STATUS = [
    ({"net.ipv4.nothing": "1"}, "the kernel has no sysctl net.ipv4.nothing in a new network namespace"),
    ({"kernel.pid_max": "1"}, 'invalid net sysctl key: "kernel.pid_max"'),
]


def test_status_tells_what_an_add_would_be_refused_for(host: Host) -> None:
    def status(sysctls: dict[str, str]) -> Answer:
        conf = {"cniVersion": "1.1.0", "name": "net1", "type": "tuning", "sysctl": sysctls}
        return host.plugin("tuning", "STATUS", conf, container_id="", ifname="")

    status(SYSCTLS | {"net.ipv6.conf.eth9.accept_dad": "0", "net.ipv4.route.flush": "1"}).must()
    for sysctls, message in STATUS:
        answer = status(sysctls)
        assert answer.code == 50
        assert answer.msg.startswith(message)
    host.run(["mkdir", "-p", "/etc/cni/tuning"])
    host.run(["cp", "/dev/stdin", "/etc/cni/tuning/allowlist.conf"], "^net/ipv6/")
    assert status(SYSCTLS).msg.startswith("Sysctl net.core.somaxconn is not allowed.")
