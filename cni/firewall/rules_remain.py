"""What is certainly there and could not be taken away, which no fallback makes right."""

from __future__ import annotations

from cni.errors import CniError


class LeftError(CniError):
    """Rules of an attachment are in the kernel, and what would take them away is missing here."""
