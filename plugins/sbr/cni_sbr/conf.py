"""The configuration keys of the sbr plugin; pure."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from cni.addresses import parse_ip
from cni.conf import Bool, Int, NetConf, parsed_by
from cni.result import IpAddress

_Table = Annotated[Int, Field(ge=1, le=0xFFFFFFFF)]
_Gateway = Annotated[IpAddress, parsed_by(parse_ip)]


class SbrConf(NetConf):
    """The configuration of routing by source address.

    Attributes:
        table: Routing table that the rules lead to. The plugin then adds rules only, and no routes. The
            default is a free table for each address, from 100 on.
        gateways: Gateway of the default route in the tables, at most one of each family. The default is the
            gateway of the address.
        add_source_hints: Keep the routes to the interface's own subnets in the main table, with its address
            as the source.
    """

    table: _Table | None = None
    gateways: tuple[_Gateway, ...] = ()
    add_source_hints: Bool = False

    @model_validator(mode="after")
    def _check_gateways(self) -> Self:
        versions = [each.version for each in self.gateways]
        if len(set(versions)) != len(versions):
            raise ValueError('"gateways" must have at most one IPv4 and one IPv6 address')
        return self
