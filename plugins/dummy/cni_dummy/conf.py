"""The configuration keys of the dummy plugin; pure."""

from __future__ import annotations

from typing import Self

from pydantic import model_validator

from cni.interface.conf import InterfaceConf


class DummyConf(InterfaceConf):
    """The configuration of a network of links that lead nowhere. It has no keys of its own."""

    plugin = "dummy"

    @model_validator(mode="after")
    def _require_ipam(self) -> Self:
        if not self.ipam.type:
            raise ValueError("dummy interface requires an IPAM configuration")
        return self
