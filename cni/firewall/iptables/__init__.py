"""The backend iptables."""
