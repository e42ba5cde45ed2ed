"""Configurations of firewall for the fuzz tests: right ones, and some with odd names."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.inputs import FLAGS, mostly, network

# The part of an area's cases that are for this plugin.
SHARE = 0.1
CONFIGURATIONS = st.fixed_dictionaries(
    network("firewall"),
    optional={
        "backend": st.sampled_from(["iptables", "nftables", "ipfw"]),
        "iptablesAdminChainName": mostly("CNI-ADMIN", "MY-RULES", "ACCEPT", "-j DROP", "A\nCOMMIT"),
        "firewalldZone": mostly("trusted", "public", "a b"),
        "ingressPolicy": mostly("open", "same-bridge", "isolated", "closed"),
        "isolate": st.sampled_from([True, False, "strict"]),
        "internal": FLAGS,
        "icc": FLAGS,
        "allow": mostly([], ["net2"], ["net1", "net2"], ["../net2"], [""]),
    },
)
