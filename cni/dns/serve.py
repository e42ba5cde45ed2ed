"""The DNS server as a helper: the parts that the loop calls, see `cni.service.loop`."""

from __future__ import annotations

from cni.dns.client import HELPER
from cni.dns.server.serve import finish, receive, tick

__all__ = ["HELPER", "finish", "receive", "tick"]
