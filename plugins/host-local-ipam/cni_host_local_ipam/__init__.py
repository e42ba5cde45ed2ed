"""The host-local plugin: addresses out of ranges, noted on the host's disk."""

from cni_host_local_ipam.plugin import PLUGIN

__all__ = ["PLUGIN"]
