"""Configurations of tuning for the fuzz tests: keys and values that the kernel may read in its own way."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.inputs import FLAGS, MACS, SELDOM, mostly, network

# The part of an area's cases that are for this plugin.
SHARE = 0.2
KEYS = st.sampled_from(
    [
        "net.core.somaxconn",
        "net/core/somaxconn",
        "net.ipv4.ip_forward",
        "net.ipv4.conf.lo.arp_filter",
        "net.ipv4.conf.all.arp_announce",
        "net/ipv6/conf/lo/hop_limit",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.route.flush",
        "net.ipv4.tcp_available_congestion_control",
        "net.ipv4.conf.IFNAME.arp_filter",
        "net.ipv4.nothing",
        "net/../kernel/pid_max",
        "kernel.pid_max",
        "net.",
        "",
    ]
)
VALUES = st.sampled_from(
    ["1", "0", "2", "0x1", "01", " 1 ", "1 2", "20000 40000", "8,10-12", "-1", "", "x", "1\0"]
)
SYSCTLS = st.dictionaries(KEYS, VALUES, max_size=3)
NUMBERS = mostly(0, 1400, 68, 65536, -1, 2**32)


def _attributes(is_given: bool) -> st.SearchStrategy[dict[str, object]]:  # noqa: FBT001 - flatmap passes it
    # There is no interface: with any attribute an ADD fails.
    if not is_given:
        return st.just({})
    flags = {"promisc": FLAGS, "allmulti": FLAGS}
    return st.fixed_dictionaries({}, optional={"mtu": NUMBERS, "txQLen": NUMBERS, "mac": MACS, **flags})


ATTRIBUTES = SELDOM.flatmap(_attributes)
ARGS = st.builds(lambda sysctls, more: {"cni": {"sysctl": sysctls} | more}, SYSCTLS, ATTRIBUTES)
CONFIGURATIONS = st.builds(
    lambda conf, more: conf | more,
    st.fixed_dictionaries(
        network("tuning"),
        optional={
            "sysctl": SYSCTLS,
            "args": ARGS,
            "dataDir": st.sampled_from(["", "/run/fuzz", "/nowhere", "."]),
            "runtimeConfig": st.fixed_dictionaries({"mac": st.just("")}),
        },
    ),
    ATTRIBUTES,
)
