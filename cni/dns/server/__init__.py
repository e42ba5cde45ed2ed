"""The DNS server: a helper process. No plugin imports it."""
