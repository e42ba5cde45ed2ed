"""Strategies for what a plugin is told: configurations, right and wrong, and results of all versions."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from cni.versions import SUPPORTED
from tests.fuzz import place

Json = dict[str, Any]
Documents = st.SearchStrategy[Json]

VERSIONS = st.sampled_from(SUPPORTED)
# No slashes: a text that becomes a path must not lead anywhere.
TEXTS = st.text(max_size=8).map(lambda text: text.replace("/", "|"))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 70_000)
    | st.sampled_from([2**31, 2**32, -(2**63), 2**64, 10**30])
    | st.sampled_from(["x%d", "a b", "portmap", "loopback"])
    | st.floats()
    | st.sampled_from(["", ".", "..", "10.1.0.0/16", "10.1.0.7", "fd00::/64", "::1", "tcp", "x\0y", "\ud800"])
    | st.sampled_from(["02:00:00:00:00:01", "iptables", "nftables", "host-local", "bridge", "n" * 300])
    | TEXTS
)
ANY_JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
FLAGS = st.booleans()
SELDOM = st.sampled_from([False, False, False, True])


def some(**members: st.SearchStrategy[Any]) -> Documents:
    """Give an object with some of the members."""
    return st.fixed_dictionaries({}, optional=members)


def mostly(good: object, *others: object) -> st.SearchStrategy[Any]:
    """Give the first value, which is right everywhere, more often than the others."""
    return st.sampled_from([good] * (2 * len(others)) + list(others))


RANGES = st.sampled_from(
    [
        {"subnet": "10.1.0.0/16"},
        {"subnet": "10.2.0.0/24", "gateway": "10.2.0.254"},
        {"subnet": "10.3.0.0/30"},
        {"subnet": "10.4.0.0/24", "rangeStart": "10.4.0.10", "rangeEnd": "10.4.0.11"},
        {"subnet": "fd00:1::/64"},
        {"subnet": "fd00:2::/112", "rangeStart": "fd00:2::5", "gateway": "fd00:2::1"},
        {"subnet": "10.1.128.0/24"},
        {"subnet": "10.9.0.0/32"},
    ]
)
ROUTES = st.sampled_from(
    [
        {"dst": "0.0.0.0/0"},
        {"dst": "::/0", "gw": "fd00:1::1"},
        {"dst": "198.51.100.0/24"},
        {"dst": "192.0.2.0/24", "gw": "10.1.0.1"},
        {"dst": "192.0.2.0/24", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 100, "scope": 0},
        {"dst": "192.0.2.0/24", "gw": "203.0.113.1"},
        {"dst": "2001:db8::/32", "gw": "fd00:1::1"},
        {"dst": "198.51.100.0/24", "scope": 300},
        {"dst": "198.51.100.0/24", "table": 2**32, "priority": 2**32},
    ]
)
FOLDERS = ["", str(place.FOLDER / "leases"), "/var/lib/cni/networks", str(place.RESOLV_CONF)]
RESOLV_CONFS = [
    "",
    str(place.RESOLV_CONF),
    str(place.FIFO),
    "/dev/zero",
    "/nowhere",
    "/run",
    "/proc/self/mem",
]
REQUESTS = st.lists(st.sampled_from(["10.1.0.5", "10.1.0.1/16", "fd00:1::7", "192.0.2.9", "x"]), max_size=2)
IPAM = st.fixed_dictionaries(
    {"type": st.just("host-local"), "ranges": st.lists(st.lists(RANGES, max_size=2), min_size=1, max_size=2)},
    optional={
        "routes": st.lists(ROUTES, max_size=2),
        "dataDir": st.sampled_from(FOLDERS),
        "resolvConf": st.sampled_from(RESOLV_CONFS),
        "statusFailsWhenFull": FLAGS,
    },
)
USUAL_IPAM = st.just({"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]})
DNS = some(
    nameservers=st.lists(st.just("192.0.2.1"), max_size=2),
    domain=st.sampled_from(["", "a.example"]),
    search=st.lists(TEXTS, max_size=2),
)
MACS = mostly("02:00:00:00:00:05", "0200.0000.0006", "", "ff:ff:ff:ff:ff:ff", "02:00")
TRUNKS = st.lists(some(minID=st.integers(0, 9), maxID=st.integers(0, 9), id=st.integers(0, 4095)), max_size=2)
HOST_IPS = ["", "0.0.0.0", "::", "127.0.0.1", "192.0.2.1", "::1"]  # noqa: S104 - no socket is bound
PORTS = st.lists(
    st.fixed_dictionaries(
        {
            "hostPort": mostly(8080, 8081, 65535, 0),
            "containerPort": mostly(80, 53, 65536),
            "protocol": st.sampled_from(["tcp", "udp", "sctp", "TCP"]),
        },
        optional={"hostIP": st.sampled_from(HOST_IPS)},
    ),
    max_size=3,
)


def network(type_: str, name: st.SearchStrategy[Any] | None = None) -> Json:
    """Give what every configuration has."""
    names = name or st.sampled_from(["net1", "net1", "net1", "n" * 200])
    return {"cniVersion": VERSIONS, "name": names, "type": st.just(type_)}


# Not every kernel has VLANs on bridges, and some keys do not go together.
BRIDGE = st.fixed_dictionaries(
    network("bridge") | {"ipam": USUAL_IPAM | IPAM | st.just({})},
    optional={
        "bridge": mostly("br0", "br1", place.OLD_BRIDGE, "a-long-bridge-1"),
        "isGateway": FLAGS,
        "isDefaultGateway": FLAGS,
        "forceAddress": FLAGS,
        "ipMasq": FLAGS,
        "ipMasqBackend": st.sampled_from(["iptables", "nftables"]),
        "mtu": mostly(1400, 0, 68, 1500, 65535, 65536),
        "hairpinMode": FLAGS,
        "promiscMode": SELDOM,
        "vlan": mostly(0, 5, 4094, 4095),
        "preserveDefaultVlan": FLAGS,
        "macspoofchk": SELDOM,
        "disableContainerInterface": SELDOM,
        "portIsolation": FLAGS,
        "runtimeConfig": some(mac=MACS, ips=REQUESTS),
        "args": some(cni=some(mac=MACS, ips=REQUESTS)),
        "dns": DNS,
    },
)
WITH_TRUNK = st.builds(lambda conf, trunk: conf | {"vlanTrunk": trunk}, BRIDGE, TRUNKS)
HOST_LOCAL = st.fixed_dictionaries(
    network("host-local") | {"ipam": USUAL_IPAM | IPAM},
    optional={
        "args": some(cni=some(ips=REQUESTS)),
        "runtimeConfig": some(ips=REQUESTS, ipRanges=st.lists(st.lists(RANGES, max_size=2), max_size=2)),
    },
)
PORTMAP = st.fixed_dictionaries(
    network("portmap"),
    optional={
        "backend": st.sampled_from(["iptables", "nftables"]),
        "snat": FLAGS,
        "masqAll": FLAGS,
        "markMasqBit": mostly(13, 0, 31, 32),
        "conditionsV4": mostly([], ["-s", "10.0.0.0/8"], ["ip", "saddr", "10.0.0.0/8"], ["!"], ["x;y", "{"]),
        "conditionsV6": mostly([], ["!", "-s", "fd00::/8"], ["ip6", "saddr", "fd00::/8"], ["-s"], ["}"]),
        "runtimeConfig": st.fixed_dictionaries({"portMappings": PORTS}),
    },
)
LOOPBACK = st.fixed_dictionaries(network("loopback"), optional={"dns": DNS})
VALID: dict[str, Documents] = {
    "bridge": st.one_of(BRIDGE, BRIDGE, BRIDGE, WITH_TRUNK),
    "host-local": HOST_LOCAL,
    "portmap": PORTMAP | st.builds(lambda conf: conf | {"externalSetMarkChain": "KUBE-MARK-MASQ"}, PORTMAP),
    "loopback": LOOPBACK,
}

INTERFACES = st.fixed_dictionaries(
    {"name": st.sampled_from(["eth0", "br0", "veth1", "lo"])},
    optional={
        "mac": MACS,
        "sandbox": st.sampled_from(["", place.NETNS, "/run/netns/other", "x\0y"]),
        "mtu": st.integers(0, 2000),
    },
)
ADDRESSES = st.sampled_from(["10.1.0.9/16", "10.1.0.10/16", "fd00:1::9/64", "127.0.0.1/8", "::1/128"])
GATEWAYS = st.sampled_from(["10.1.0.1", "fd00:1::1", ""])
IPS = st.fixed_dictionaries(
    {"address": ADDRESSES}, optional={"gateway": GATEWAYS, "interface": st.integers(-1, 3), "version": TEXTS}
)
OLD_IPS = st.fixed_dictionaries(
    {"ip": ADDRESSES}, optional={"gateway": GATEWAYS, "routes": st.lists(ROUTES, max_size=2)}
)


@st.composite
def results(draw: st.DrawFn, version: str) -> Json:
    """Give a result as a plugin of a spec version would have answered it."""
    if version in {"0.1.0", "0.2.0"}:
        shape = some(ip4=OLD_IPS, ip6=OLD_IPS, dns=DNS)
    else:
        shape = some(
            interfaces=st.lists(INTERFACES, max_size=3),
            ips=st.lists(IPS, max_size=3),
            routes=st.lists(ROUTES, max_size=2),
            dns=DNS,
        )
    return {"cniVersion": version} | draw(shape)


@st.composite
def broken(draw: st.DrawFn, documents: st.SearchStrategy[Any], most: int = 2) -> Any:
    """Give one of the documents, as it is or with up to `most` members replaced, doubled or misspelt."""
    document = copy.deepcopy(draw(documents))
    for _ in range(draw(st.integers(0, most)) * draw(FLAGS)):
        _break(draw, document)
    return document


def _break(draw: st.DrawFn, document: Any) -> None:
    place_ = document
    while True:
        keys: list[Any] = sorted(place_) if isinstance(place_, dict) else []
        keys = list(range(len(place_))) if isinstance(place_, list) else keys
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = place_[key]
        if isinstance(inner, dict | list) and inner and draw(FLAGS):
            place_ = inner
            continue
        how = draw(st.sampled_from(["value", "value", "drop", "case", "more"]))
        if how == "value":
            # A folder that is named by chance could be any.
            place_[key] = draw(ANY_JSON)
        elif how == "drop":
            del place_[key]
        elif how == "case" and isinstance(place_, dict):
            place_[draw(st.sampled_from([str.upper, str.lower, str.title]))(key)] = place_.pop(key)
        elif isinstance(place_, dict):
            place_[draw(TEXTS)] = draw(ANY_JSON)
        return
