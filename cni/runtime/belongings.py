"""Find the attachments that a deleted link, address, route or rule belongs to: for `pycni watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from cni.convert import parse_result
from cni.errors import CniError
from cni.firewall.intents import Owner
from cni.firewall.losses import named_owners, texts
from cni.runtime.network import bridges, parse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cni.runtime.cache import Cache, Entry

# Shorter names may stand in any rule by chance.
_SHORTEST_NAME = 8
# How nf_tables writes an address of 4 or of 16 bytes: as the first attribute of another one.
_VALUE_HEADERS = {4: b"\x08\x00\x01\x00", 16: b"\x14\x00\x01\x00"}


class Belongings(NamedTuple):
    """Objects of an attachment on the host: names of its links and of bridges that it shares, and addresses.

    `texts` name it in rules. `parts` are in its rules only, too: long names, and addresses as nf_tables
    writes them.
    """

    owner: Owner
    links: frozenset[str] = frozenset()
    shared_links: frozenset[str] = frozenset()
    gateways: frozenset[bytes] = frozenset()
    addresses: frozenset[bytes] = frozenset()
    texts: frozenset[bytes] = frozenset()
    parts: tuple[bytes, ...] = ()


class Loss(NamedTuple):
    """An object that is gone, in words, and the attachments that need it: None for all."""

    text: str
    owners: frozenset[Owner] | None = None


class Register:
    """The attachments of the result cache; files that have not changed are not read again."""

    def __init__(self, cache: Cache, network: str) -> None:
        self._cache = cache
        self._network = network
        self._files: dict[str, tuple[tuple[int, int], Belongings | None]] = {}
        # All links of a container on one network have the same chains.
        self._by_text: dict[bytes, set[Owner]] = {}

    def refresh(self) -> None:
        """Read new and changed files. Raise CniError 106 if the cache cannot be read."""
        files = {}
        for name, stamp in self._cache.stamps().items():
            before = self._files.get(name)
            files[name] = before if before and before[0] == stamp else (stamp, self._read(name))
        if files != self._files:
            self._files = files
            self._by_text = {}
            for each in self.all():
                for text in each.texts:
                    self._by_text.setdefault(text, set()).add(each.owner)

    def _read(self, name: str) -> Belongings | None:
        entry = self._cache.read_file(name)
        return _belongings(entry) if entry and self._network in {"", entry.network} else None

    def all(self) -> Iterable[Belongings]:
        """Return the objects of each attachment."""
        return [each for _, each in self._files.values() if each]

    def needing_link(self, name: str) -> frozenset[Owner] | None:
        """Return the attachments that need a link; None if it is a bridge of theirs."""
        if any(name in each.shared_links for each in self.all()):
            return None
        return self._owners(lambda each: name in each.links)

    def needing_address(self, address: bytes) -> frozenset[Owner]:
        """Return the attachments that have an address, or have it as their gateway."""
        return self._owners(lambda each: address in each.gateways or address in each.addresses)

    def needing_rules(self, payloads: Iterable[bytes]) -> frozenset[Owner] | None:
        """Return the attachments that need deleted objects; None if one of them is shared.

        An object that names an attachment that is not cached is none of ours to repair.
        """
        owners: set[Owner] = set()
        for payload in payloads:
            if named := named_owners(payload):
                owners.update(*(self._by_text.get(each, ()) for each in named))
            elif with_part := [
                each.owner for each in self.all() if any(one in payload for one in each.parts)
            ]:
                owners.update(with_part)
            else:
                return None
        return frozenset(owners)

    def _owners(self, needs: Callable[[Belongings], bool]) -> frozenset[Owner]:
        return frozenset(each.owner for each in self.all() if needs(each))


def _belongings(entry: Entry) -> Belongings:
    owner = Owner(entry.network, entry.container_id, entry.ifname)
    known = Belongings(owner, texts=frozenset(texts(owner)))
    try:
        result = parse_result(entry.result, "", "cached result")
        shared = frozenset(bridges(parse_network(entry.config, "in the result cache")))
    except CniError:
        return known
    names = frozenset(each.name for each in result.interfaces if not each.sandbox)
    addresses = frozenset(each.address.ip.packed for each in result.ips)
    words = [each.encode() for each in (entry.container_id, *(names - shared)) if len(each) >= _SHORTEST_NAME]
    return known._replace(
        links=names - shared,
        shared_links=shared,
        gateways=frozenset(each.gateway.packed for each in result.ips if each.gateway),
        addresses=addresses,
        parts=(*words, *(_VALUE_HEADERS[len(each)] + each for each in addresses)),
    )
