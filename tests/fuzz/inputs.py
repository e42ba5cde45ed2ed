"""Strategies for the input of plugins: parts of configurations, right and wrong, and results of all versions.

`tests/fuzz/configurations.py` has the configurations of each plugin.
"""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

from cni.versions import SUPPORTED
from tests.fuzz import place
from tests.support.subjects import PLUGINS

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
    | st.sampled_from(["x%d", "a b", *PLUGINS])
    | st.floats()
    | st.sampled_from(["", ".", "..", "10.1.0.0/16", "10.1.0.7", "fd00::/64", "::1", "tcp", "x\0y", "\ud800"])
    | st.sampled_from(["02:00:00:00:00:01", "iptables", "nftables", "n" * 300])
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
    """Return an object with some of the members."""
    return st.fixed_dictionaries({}, optional=members)


def mostly(good: object, *others: object) -> st.SearchStrategy[Any]:
    """Return the first value, which is right everywhere, more often than the others."""
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
DNS = some(
    nameservers=st.lists(st.just("192.0.2.1"), max_size=2),
    domain=st.sampled_from(["", "a.example"]),
    search=st.lists(TEXTS, max_size=2),
)
MACS = mostly("02:00:00:00:00:05", "0200.0000.0006", "", "ff:ff:ff:ff:ff:ff", "02:00")


def network(type_: str, name: st.SearchStrategy[Any] | None = None) -> Json:
    """Return what every configuration has."""
    names = name or st.sampled_from(["net1", "net1", "net1", "n" * 200])
    return {"cniVersion": VERSIONS, "name": names, "type": st.just(type_)}


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
    """Return a result as a plugin of a spec version would have answered it."""
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
    """Return one of the documents, as it is or with up to `most` members replaced, doubled or misspelt."""
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
