"""The helper, as `pycni helper` and the units find it: the DNS server of the library."""

from cni.dns.client import HELPER

__all__ = ["HELPER"]
