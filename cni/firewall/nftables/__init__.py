"""The backend nftables."""
