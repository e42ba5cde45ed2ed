"""The verbs of bandwidth behind the bridge: limits are set, compared, repaired and removed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.network import Network

if TYPE_CHECKING:
    from cni.testing import Answer, Host, Sandbox

BOTH: dict[str, Any] = {
    "ingressRate": 8_000_000,
    "ingressBurst": 800_000,
    "egressRate": 16_000_000,
    "egressBurst": 1_600_000,
}
SUBNETS = ["10.9.0.0/16", "192.0.2.1/32", "fd09::/48", "::/0"]
FORMS: dict[str, dict[str, Any]] = {
    "own": BOTH,
    "runtime": {
        "runtimeConfig": {"bandwidth": {key[0].upper() + key[1:]: each for key, each in BOTH.items()}}
    },
    "unshaped": BOTH | {"unshapedSubnets": SUBNETS},
    "shaped": {"runtimeConfig": {"bandwidth": BOTH}, "shapedSubnets": SUBNETS},
}


class Limited:
    """A container behind the bridge, and calls of bandwidth for it."""

    def __init__(self, host: Host, version: str = "1.1.0", ifname: str = "eth0") -> None:
        self.host = host
        self.ifname = ifname
        self.net = Network(host, cniVersion=version, isGateway=True)
        self.sandbox: Sandbox = host.sandbox("c1")
        self.result: dict[str, Any] = self.net.call("ADD", "c1", ifname=ifname).must()
        [self.end] = [each for each in host.links() if each.startswith("veth")]

    def call(self, verb: str, conf: dict[str, Any], **options: Any) -> Answer:
        keys = {"cniVersion": self.net.conf["cniVersion"], "name": "net1", "type": "bandwidth"}
        given: dict[str, Any] = {"netns": self.sandbox, "ifname": self.ifname} | options
        return self.host.plugin("bandwidth", verb, keys | {"prevResult": self.result} | conf, **given)

    def add(self, conf: dict[str, Any]) -> dict[str, Any]:
        self.result = self.call("ADD", conf).must()
        return self.result

    def tc(self, *words: str) -> str:
        return self.host.run(["tc", *words])

    def state(self) -> list[Any]:
        """Return links and queueing disciplines of the host, without what is random."""
        shown = self.host.json(["tc", "-j", "qdisc", "show"])
        links = {each["ifname"]: each for each in self.host.json(["ip", "-j", "link"])}
        qdiscs = [(each["dev"], each["kind"], each.get("parent", "")) for each in shown]
        return [sorted(links), sorted(qdiscs)]

    @property
    def ifbs(self) -> list[str]:
        return [each for each in self.host.links() if each.startswith("bwp")]


def test_the_limits_are_those_of_go(host: Host) -> None:
    one = Limited(host)
    before = one.state()
    result = one.add(BOTH)
    [ifb] = one.ifbs
    [shown] = host.json(["ip", "-j", "-d", "link", "show", ifb])
    assert result["interfaces"][3] == {"name": ifb, "mac": shown["address"]}
    assert (shown["mtu"], "UP" in shown["flags"], shown["linkinfo"]["info_kind"]) == (1500, True, "ifb")
    for name, rate, burst in ((one.end, 1_000_000, 100_000), (ifb, 2_000_000, 200_000)):
        [tbf] = [
            each for each in host.json(["tc", "-j", "qdisc", "show", "dev", name]) if each["kind"] == "tbf"
        ]
        assert (tbf["handle"], tbf["options"]["rate"], tbf["options"]["burst"]) == ("1:", rate, burst)
    filters = one.tc("filter", "show", "dev", one.end, "ingress")
    assert f"mirred (Egress Redirect to device {ifb})" in filters
    one.call("CHECK", BOTH).must()
    for _ in range(2):
        one.call("DEL", BOTH).must()
        assert one.ifbs == []
    one.net.delete("c1")
    assert [each for each in one.state()[0] if each not in before[0]] == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("version", ["0.2.0", "0.3.1", "1.0.0", "1.1.0"])
def test_each_form_of_limits_in_each_version(host: Host, version: str, form: dict[str, Any]) -> None:
    one = Limited(host, version)
    one.add(form)
    assert len(one.ifbs) == 1
    if version >= "1":
        one.call("CHECK", form).must()
        assert one.call("PYCNI_REPAIR", form).must() == {"repaired": [], "failed": []}
    # The same again is no error: the runtime may repeat a call that was killed.
    one.result["interfaces"] = one.result.get("interfaces", [])[:3]
    one.add(form)
    if version >= "1":
        one.call("CHECK", form).must()
    one.call("DEL", form).must()
    assert one.ifbs == []


NONE: list[dict[str, Any]] = [
    {},
    {"ingressRate": 0, "ingressBurst": 0, "egressRate": 0, "egressBurst": 0},
    {"runtimeConfig": {"bandwidth": {"ingressRate": 0, "ingressBurst": 0}}},
    {"runtimeConfig": {"bandwidth": None}},
    {"unshapedSubnets": ["10.0.0.0/8"]},
    # The configuration's own rates count, 0 as well.
    {"ingressRate": 0, "runtimeConfig": {"bandwidth": BOTH}},
]


def test_without_limits_the_result_is_passed_on(host: Host) -> None:
    one = Limited(host)
    before, earlier = one.state(), one.result
    for conf in NONE:
        assert one.add(conf) == earlier
        one.call("CHECK", conf).must()
        one.call("DEL", conf).must()
    assert one.state() == before


def test_each_direction_may_be_limited_alone(host: Host) -> None:
    one = Limited(host)
    ingress = {key: value for key, value in BOTH.items() if key.startswith("ingress")}
    one.add(ingress)
    assert one.ifbs == []
    one.call("CHECK", ingress).must()
    assert one.call("CHECK", BOTH).msg == "get ifb device: Link not found"
    one.tc("qdisc", "del", "dev", one.end, "root")
    egress = {key: value for key, value in BOTH.items() if key.startswith("egress")}
    one.add(egress)
    one.call("CHECK", egress).must()
    assert one.call("CHECK", BOTH).msg.startswith("Failed to find qdisc")


# What another program may do, and the beginning of the message.
CHANGES = {
    "no limit": (["tc", "qdisc", "del", "dev", "END", "root"], "Failed to find qdisc: the limit of END"),
    "another rate": (
        [
            "tc",
            "qdisc",
            "change",
            "dev",
            "END",
            "root",
            "tbf",
            "rate",
            "9mbit",
            "burst",
            "100000",
            "limit",
            "125000",
        ],
        "Rate doesn't match: the limit of END",
    ),
    "no limit of the ifb": (
        ["tc", "qdisc", "del", "dev", "IFB", "root"],
        "Failed to find qdisc: the limit of IFB",
    ),
    "no redirection": (
        ["tc", "qdisc", "del", "dev", "END", "ingress"],
        "what END receives is not redirected to IFB",
    ),
    "an ifb that is down": (["ip", "link", "set", "IFB", "down"], "Interface IFB is down"),
    "no ifb": (["ip", "link", "del", "IFB"], "get ifb device: Link not found"),
}


@pytest.mark.parametrize(("command", "message"), CHANGES.values(), ids=CHANGES)
def test_check_names_a_difference_and_repair_sets_the_limit_again(
    host: Host, command: list[str], message: str
) -> None:
    one = Limited(host)
    one.add(BOTH)
    words = {"END": one.end, "IFB": one.ifbs[0]}
    before = one.state()
    host.run([words.get(each, each) for each in command])
    for name, value in words.items():
        message = message.replace(name, value)
    answer = one.call("CHECK", BOTH)
    assert (answer.code, answer.msg) == (104, message)
    repaired = one.call("PYCNI_REPAIR", BOTH).must()
    assert repaired["failed"] == []
    assert repaired["repaired"]
    one.call("CHECK", BOTH).must()
    assert one.state() == before
    one.call("DEL", BOTH).must()


def test_check_compares_subnets(host: Host) -> None:
    one = Limited(host)
    one.add(FORMS["unshaped"])
    other = FORMS["unshaped"] | {"unshapedSubnets": ["10.9.0.0/16"]}
    assert one.call("CHECK", other).msg.startswith("subnets don't match")
    assert one.call("CHECK", BOTH).msg.startswith("Failed to find qdisc")
    assert one.call("PYCNI_REPAIR", other).must()["failed"] == []
    one.call("CHECK", other).must()


def test_two_interfaces_of_a_container_have_an_ifb_each(host: Host) -> None:
    """The Go plugin gives both the same name, and fails."""
    one = Limited(host)
    one.add(BOTH)
    result = one.net.call("ADD", "c1", ifname="eth1").must()
    conf = BOTH | {"prevResult": result}
    second = one.call("ADD", conf, ifname="eth1").must()
    assert len(one.ifbs) == 2
    one.call("CHECK", BOTH).must()
    one.call("CHECK", BOTH | {"prevResult": second}, ifname="eth1").must()
    one.call("DEL", BOTH).must()
    one.call("CHECK", BOTH | {"prevResult": second}, ifname="eth1").must()
    one.call("DEL", BOTH | {"prevResult": None}, ifname="eth1").must()
    assert one.ifbs == []


def test_a_runtime_that_asks_for_the_largest_burst(host: Host) -> None:
    """containerd does, whatever the rate."""
    one = Limited(host)
    conf = {"runtimeConfig": {"bandwidth": {"IngressRate": 1_000_000, "IngressBurst": 4294967295}}}
    one.add(conf)
    one.call("CHECK", conf).must()
    one.tc("qdisc", "del", "dev", one.end, "root")
    capped = conf | {"maxBurst": 800_000, "latencyMs": 50}
    one.add(capped)
    [tbf] = [
        each for each in host.json(["tc", "-j", "qdisc", "show", "dev", one.end]) if each["kind"] == "tbf"
    ]
    assert tbf["options"]["burst"] == 100_000
    assert tbf["options"]["lat"] == 50_000
    one.call("CHECK", capped).must()


def test_a_small_burst_is_logged(host: Host) -> None:
    one = Limited(host)
    answer = one.call("ADD", {"ingressRate": 8000, "ingressBurst": 8000})
    answer.must()
    assert "ingressBurst is less than a packet of 1500 bytes" in answer.stderr


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"ingressRate": 8000}, "if rate is set, burst must also be set"),
    ({"egressBurst": 8000}, "if burst is set, rate must also be set"),
    ({"egressRate": 8000, "egressBurst": 2**35}, "burst cannot be more than 4GB"),
    ({"egressRate": 7, "egressBurst": 8}, '"egressRate" must be at least 8 bits per second, got 7'),
    (
        {"egressRate": 80_000_000_000, "egressBurst": 8000},
        '"egressBurst" must be at least 85136 bits for a rate of 80000000000, got 8000',
    ),
    (BOTH | {"maxBurst": 8}, '"maxBurst" must be at least 24 bits for a rate of 8000000, got 8'),
    ({"shapedSubnets": ["x"]}, 'bad subnet "x" provided, details invalid CIDR address: x'),
]


def test_limits_that_the_kernel_refuses_are_refused_by_name(host: Host) -> None:
    one = Limited(host)
    before = one.state()
    for conf, message in REFUSED:
        answer = one.call("ADD", conf)
        assert answer.code == 7
        assert answer.msg.startswith(message)
    assert one.state() == before


def pair(rate: int, burst: int) -> dict[str, int]:
    return {"ingressRate": rate, "ingressBurst": burst}


@pytest.mark.parametrize("rate", [8, 24, 1000, 8_000_000, 10**10, 8 * 10**10])
def test_the_kernel_takes_the_smallest_burst_that_is_named(host: Host, rate: int) -> None:
    one = Limited(host)
    least = 8 * (2 + rate // 8 * 1064 // 10**9)
    one.add(pair(rate, least))
    one.call("CHECK", pair(rate, least)).must()


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_without_a_result_it_is_an_error(host: Host, verb: str) -> None:
    one = Limited(host)
    answer = one.call(verb, BOTH | {"prevResult": None})
    assert (answer.code, answer.msg.startswith("must be called as ")) == (7, True)


def test_an_interface_without_a_host_end_is_refused(host: Host) -> None:
    one = Limited(host)
    one.sandbox.run(["ip", "link", "add", "br9", "type", "bridge"])
    for ifname, message in (("br9", "its kind is bridge"), ("none", 'failed to lookup "none"')):
        answer = one.call("ADD", BOTH, ifname=ifname)
        assert (answer.code, answer.msg) == (7, f"container interface {ifname} has no veth peer: {message}")
    assert one.ifbs == []


def test_the_disciplines_of_other_programs_stay(host: Host) -> None:
    one = Limited(host)
    one.tc("qdisc", "add", "dev", one.end, "root", "pfifo", "limit", "10")
    answer = one.call("ADD", BOTH)
    assert (answer.code, "has a qdisc of another program" in answer.msg) == (105, True)
    assert "pfifo" in one.tc("qdisc", "show", "dev", one.end)
    one.tc("qdisc", "del", "dev", one.end, "root")
    one.tc("qdisc", "add", "dev", one.end, "ingress")
    one.tc(
        "filter",
        "add",
        "dev",
        one.end,
        "ingress",
        "prio",
        "7",
        "u32",
        "match",
        "u32",
        "0",
        "0",
        "flowid",
        "1:1",
    )
    answer = one.call("ADD", BOTH)
    assert (answer.code, "another program filters" in answer.msg) == (105, True)
    assert "pref 7" in one.tc("filter", "show", "dev", one.end, "ingress")
    assert one.ifbs == []
    assert "tbf" not in one.tc("qdisc", "show", "dev", one.end)


def test_gc_removes_ifbs_of_invalid_attachments_also_when_the_container_is_gone(host: Host) -> None:
    one = Limited(host)
    one.add(BOTH)
    valid = [{"containerID": "c1", "ifname": "eth0"}]
    keys: dict[str, Any] = {"prevResult": None, "cni.dev/valid-attachments": valid}
    one.call("GC", keys, container_id="", ifname="").must()
    assert len(one.ifbs) == 1
    # Another network does not know whose it is.
    other = keys | {"name": "net2", "cni.dev/valid-attachments": []}
    one.call("GC", other, container_id="", ifname="").must()
    assert len(one.ifbs) == 1
    one.sandbox.delete()
    keys["cni.dev/valid-attachments"] = []
    shown = one.call("PYCNI_GC_PLAN", keys, container_id="", ifname="").must()
    assert [(each["kind"], each["containerID"]) for each in shown["stale"]] == [("link", "c1")]
    one.call("GC", keys, container_id="", ifname="").must()
    assert one.ifbs == []


def test_del_without_the_namespace_or_a_result_removes_the_ifb(host: Host) -> None:
    for keys in ({}, {"prevResult": None, "runtimeConfig": None}):
        one = Limited(host)
        one.add(BOTH)
        one.sandbox.delete()
        one.call("DEL", keys, netns="").must()
        assert one.ifbs == []
        one.net.delete("c1", netns="")


def test_status_tries_what_limits_need(host: Host) -> None:
    one = Limited(host)
    for conf in FORMS.values():
        one.call("STATUS", conf, container_id="", ifname="").must()
