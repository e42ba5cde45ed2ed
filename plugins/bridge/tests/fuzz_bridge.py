"""Configurations of bridge for the fuzz tests: right ones, and some with keys that do not go together."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz import configurations, place
from tests.fuzz.inputs import DNS, FLAGS, MACS, REQUESTS, SELDOM, mostly, network, some

# The part of an area's cases that are for this plugin.
SHARE = 0.4
TRUNKS = st.lists(some(minID=st.integers(0, 9), maxID=st.integers(0, 9), id=st.integers(0, 4095)), max_size=2)

# Not every kernel has VLANs on bridges, and some keys do not go together.
BRIDGE = st.fixed_dictionaries(
    network("bridge") | {"ipam": configurations.usual_ipam() | configurations.ipam() | st.just({})},
    optional={
        "bridge": mostly("br0", "br1", place.OLD_BRIDGE, "a-long-bridge-1"),
        "isGateway": FLAGS,
        "isDefaultGateway": FLAGS,
        "forceAddress": FLAGS,
        "ipMasq": FLAGS,
        "ipMasqBackend": st.sampled_from(["iptables", "nftables"]),
        "ipMasqFamilies": mostly(["ipv4"], ["IPv6"], ["ipv4", "ipv6"], [], ["ip"]),
        "ipMasqExcept": mostly([], ["10.0.0.0/8", "10.1.0.0/16", "fd00::/8"], ["192.0.2.1"], ["10.1.2.3/8"]),
        "gatewayPriority": mostly(0, 100, -100, 101),
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
CONFIGURATIONS = st.one_of(BRIDGE, BRIDGE, BRIDGE, WITH_TRUNK)
