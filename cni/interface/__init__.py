"""The parts of an interface plugin: veth pair, addresses, IPAM, comparison, repair and GC."""
