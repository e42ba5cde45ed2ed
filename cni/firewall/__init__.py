"""Packet rules: plugins state intents, a backend renders them as iptables or nftables."""
