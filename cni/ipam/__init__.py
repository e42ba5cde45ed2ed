"""Leases of addresses in files, and the index beside them."""
