"""Configurations of portmap for the fuzz tests: right ones, and some with keys that do not go together."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.inputs import FLAGS, mostly, network

# The part of an area's cases that are for this plugin.
SHARE = 0.2
HOST_IPS = ["", "0.0.0.0", "::", "127.0.0.1", "192.0.2.1", "::1"]  # noqa: S104 - no socket is bound
CLIENTS = st.lists(
    mostly("10.0.0.0/8", "10.1.0.0/16", "192.0.2.1", "0.0.0.0/0", "fd00::/8", "10.1.2.3/8", "::/0", "x"),
    max_size=4,
)
PORTS = st.lists(
    st.fixed_dictionaries(
        {
            "hostPort": mostly(8080, 8081, 65535, 0),
            "containerPort": mostly(80, 53, 65536),
            "protocol": st.sampled_from(["tcp", "udp", "sctp", "TCP"]),
        },
        optional={"hostIP": st.sampled_from(HOST_IPS), "allowFrom": CLIENTS},
    ),
    max_size=3,
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
        "allowFrom": CLIENTS,
        "runtimeConfig": st.fixed_dictionaries({"portMappings": PORTS}),
    },
)
CONFIGURATIONS = PORTMAP | st.builds(lambda conf: conf | {"externalSetMarkChain": "KUBE-MARK-MASQ"}, PORTMAP)
