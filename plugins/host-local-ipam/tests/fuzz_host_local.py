"""Configurations of host-local for the fuzz tests: right ones, and some with keys that do not go together."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz import place
from tests.fuzz.inputs import FLAGS, RANGES, REQUESTS, RESOLV_CONFS, ROUTES, network, some

# The part of an area's cases that are for this plugin.
SHARE = 0.3
FOLDERS = ["", str(place.FOLDER / "leases"), "/var/lib/cni/networks", str(place.RESOLV_CONF)]
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
CONFIGURATIONS = st.fixed_dictionaries(
    network("host-local") | {"ipam": USUAL_IPAM | IPAM},
    optional={
        "args": some(cni=some(ips=REQUESTS)),
        "runtimeConfig": some(ips=REQUESTS, ipRanges=st.lists(st.lists(RANGES, max_size=2), max_size=2)),
    },
)
