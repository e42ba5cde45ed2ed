"""The networks that the server knows, and the part of them that an asker sees. Pure.

    book.add(record)
    view = book.view("10.1.0.5", "10.1.0.1")
    view.zones                    # the asker's networks, in the order of attachment

The host sees all networks, first those of the address that it asks at.
"""

from __future__ import annotations

from functools import cached_property
from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple

from cni.dns.names import Record, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from cni.result import IpNetwork

HOST = ""


class Zone:
    """The names of a network. Names are in lower case, addresses are texts as the kernel shows them."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.settings = Settings()
        self._newest: Record | None = None
        self._names = _Index()
        # The newest holder of an address is the last.
        self._holders = _Index()

    def add(self, record: Record) -> None:
        """Add a record; an address belongs to the newest record that has it."""
        for name in record.names:
            self._names.add(name, record)
        for address in record.addresses:
            self._holders.add(address, record)
        if self._newest is None or record.since_ns >= self._newest.since_ns:
            self._settle(record)

    def remove(self, record: Record) -> None:
        """Remove a record."""
        for name in dict.fromkeys(record.names):
            self._names.remove(name, record)
        for address in dict.fromkeys(record.addresses):
            self._holders.remove(address, record)
        if record is self._newest:
            self._settle(max(self._names.records(), key=_since, default=None))

    def has(self, name: str) -> bool:
        """Return whether a container has the name: also if another now has all its addresses."""
        return name in self._names

    def addresses(self, name: str) -> list[str]:
        """Return the addresses of a name, of both families."""
        found = (
            address
            for record in self._names.get_all(name)
            for address in record.addresses
            if self._holders.get_all(address)[-1] is record
        )
        return list(dict.fromkeys(found))

    def holder(self, address: str) -> Record | None:
        """Return the record that an address belongs to."""
        found = self._holders.get_all(address)
        return found[-1] if found else None

    @cached_property
    def subnets(self) -> list[IpNetwork]:
        """The subnets of the network."""
        return [ip_network(each) for each in self.settings.subnets]

    @property
    def is_empty(self) -> bool:
        """Whether the network has no record."""
        return not self._names

    def _settle(self, newest: Record | None) -> None:
        self._newest = newest
        self.settings = newest.settings if newest else Settings()
        self.__dict__.pop("subnets", None)


class _Index(dict[str, "Record | tuple[Record, ...]"]):
    """Records by a text, the oldest first. Most texts have one: without a tuple for it, a name takes less."""

    def get_all(self, text: str) -> tuple[Record, ...]:
        """Return the records of a text."""
        return _as_tuple(self.get(text, ()))

    def add(self, text: str, record: Record) -> None:
        """Add a record of a text."""
        others = self.get_all(text)
        self[text] = tuple(sorted((*others, record), key=_since)) if others else record

    def remove(self, text: str, record: Record) -> None:
        """Remove a record of a text."""
        rest = tuple(each for each in self.get_all(text) if each is not record)
        if rest:
            self[text] = rest if len(rest) > 1 else rest[0]
        else:
            self.pop(text, None)

    def records(self) -> Iterator[Record]:
        """Yield all records, some several times."""
        for each in self.values():
            yield from _as_tuple(each)


class View(NamedTuple):
    """The networks that an asker sees, in the order of attachment. `container_id` is HOST for the host.

    `upstreams` are the container's own, () if it has none.
    """

    container_id: str
    zones: tuple[Zone, ...]
    upstreams: tuple[str, ...] = ()

    @property
    def forwarding(self) -> Settings | None:
        """The settings of the first network that forwards names; None if none does."""
        shown = (each.settings for each in self.zones)
        return next((each for each in shown if not each.is_internal and each.upstreams != ()), None)


class Book:
    """The records of all networks."""

    def __init__(self) -> None:
        self.zones: dict[str, Zone] = {}
        self._containers = _Index()
        self._settings: dict[Settings, Settings] = {}
        self._views: dict[tuple[str, str], View | None] = {}

    def add(self, record: Record) -> Record:
        """Add a record, and return it as `remove` takes it: records of a network share their settings."""
        shared = record._replace(settings=self._settings.setdefault(record.settings, record.settings))
        self.zones.setdefault(record.key.network, Zone(record.key.network)).add(shared)
        if record.key.container_id:
            self._containers.add(record.key.container_id, shared)
        self._forget()
        return shared

    def remove(self, record: Record) -> None:
        """Remove a record that `add` has returned."""
        zone = self.zones[record.key.network]
        zone.remove(record)
        if zone.is_empty:
            del self.zones[record.key.network]
        self._containers.remove(record.key.container_id, record)
        self._forget()

    def view(self, asker: str, gateway: str) -> View | None:
        """Return what the container at an address sees, None for an unknown one; HOST asks for the host.

        `gateway` is the address that it asks at. Where two networks have the same subnet, it says which.
        """
        key = (asker, gateway)
        if key not in self._views:
            self._views[key] = self._host_view(gateway) if asker == HOST else self._view(asker, gateway)
        return self._views[key]

    def gateways(self) -> set[str]:
        """Return the addresses that the server must answer at."""
        return {each for zone in self.zones.values() for each in zone.settings.gateways}

    def is_managed(self, labels: Iterable[str]) -> bool:
        """Return whether a name, given by its labels, is in the domain of any network."""
        rest = ".".join(labels)
        domains = self._domains
        while rest:
            if rest in domains:
                return True
            rest = rest.partition(".")[2]
        return False

    def is_managed_address(self, network: IpNetwork) -> bool:
        """Return whether an address, or the part of a subnet, is in the subnet of any network."""
        return any(
            network.version == each.version and network.subnet_of(each)  # type: ignore[arg-type]
            for zone in self.zones.values()
            for each in zone.subnets
        )

    def owner_of(self, address: str) -> str:
        """Return the container that has an address, "" if none has it."""
        holders = (zone.holder(address) for zone in self.zones.values())
        return next((each.key.container_id for each in holders if each), "")

    def addresses_of(self, container_id: str) -> set[str]:
        """Return all addresses of a container."""
        return {address for each in self._containers.get_all(container_id) for address in each.addresses}

    @cached_property
    def _domains(self) -> set[str]:
        return {each.settings.domain for each in self.zones.values() if each.settings.domain}

    def _forget(self) -> None:
        self._views.clear()
        self.__dict__.pop("_domains", None)

    def _host_view(self, gateway: str) -> View:
        ordered = sorted(self.zones.values(), key=lambda each: gateway not in each.settings.gateways)
        return View(HOST, tuple(ordered))

    def _view(self, asker: str, gateway: str) -> View | None:
        found = [(zone, record) for zone in self.zones.values() if (record := zone.holder(asker))]
        own = [each for each in found if gateway in each[0].settings.gateways] or found
        # Two containers have the address, and the gateway is of neither's network: nobody knows which asks.
        containers = {record.key.container_id for _, record in own}
        if len(containers) != 1:
            return None
        container_id = containers.pop()
        records = self._containers.get_all(container_id) or tuple(record for _, record in own)
        networks = dict.fromkeys(each.key.network for each in records)
        upstreams = next((each.upstreams for each in records if each.upstreams), ())
        return View(container_id, tuple(self.zones[each] for each in networks), upstreams)


def _as_tuple(records: Record | tuple[Record, ...]) -> tuple[Record, ...]:
    # A record is a tuple as well.
    return (records,) if isinstance(records, Record) else records


def _since(record: Record) -> int:
    return record.since_ns
