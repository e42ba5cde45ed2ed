"""What an interface plugin is made of: veth pair, addresses, IPAM, comparison, repair and GC."""
