"""The ledger of host ports and their holders, which prevents containers from shadowing each other.

A small file for each protocol and port names its holders. A file for each attachment lists its ports and its
namespace. So a call reads only files that concern it. The ledger is in /run and ends with the boot, as rules
do; records of another boot are dropped before a port is claimed. A holder that is proven to be gone holds
nothing, nor does one whose rules another program has removed. Its record stays until its rules are known to
be removed, so that the next ADD finds them after a crash.

Functions import what only the first ADD after a boot and a disputed port need: a cold start pays for each
module.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni.errors import CniError, Code
from cni.firewall.intents import Owner, PortMapping
from cni.operations.holders import Whereabouts, identify
from cni.state import boot, files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from cni.request import Attachment
    from cni.result import IpAddress
    from cni.undo import Undo

FOLDER = Path("/run/pycni/hostports")
_OWNERS = FOLDER / "by-owner"
_LOCK = FOLDER.with_suffix(".lock")
_PROTOCOLS = ("tcp", "udp", "sctp")
# This folder exists if ports of the Go plugins have been searched for since the boot.
_ADOPTED = FOLDER / "adopted"
# The temporary name of files that are written with the lock held.
_UNFINISHED = f"{files.UNFINISHED_PREFIX}claim"


class _Record(NamedTuple):
    """The ports that an attachment holds, and its place.

    `chain` is set for imported ports, which are held as long as that chain exists.
    """

    owner: Owner
    where: Whereabouts
    mappings: tuple[PortMapping, ...]
    chain: str = ""

    def is_live(self) -> bool:
        if self.chain:
            from cni.hostports import import_go

            return import_go.is_live(self.owner, self.chain)
        return not self.where.is_gone()

    def holds(self) -> bool:
        """Return whether others are refused its ports. The caller must hold the ledger's lock."""
        if not self.is_live():
            return False
        if self.chain or not self.where.is_here or _is_being_published(self.owner):
            return True
        from cni.firewall import installed

        return installed.may_be_published(self.owner)


@contextmanager
def claim(
    owner: Owner, mappings: Sequence[PortMapping], netns: str, undo: Undo, host_links: Iterable[str] = ()
) -> Iterator[list[Owner]]:
    """Make `owner` the holder of the host ports of `mappings`, and of no others. It may be called twice.

    Ports of the same container on another network do not conflict: runtimes publish them on each. The `with`
    block publishes the ports. It receives former holders that hold nothing any more, must remove their rules,
    and then call `forget` for each. `host_links` names links of the container on the host. Raise CniError
    103, naming the holder, if a port is taken. Nothing changes then.
    """
    files.ensure_directory(FOLDER.parent)
    boot.drop_earlier(FOLDER.parent)
    for folder in (FOLDER, _OWNERS):
        files.ensure_directory(folder)
    where = Whereabouts.note(netns, host_links)
    with locked(_LOCK):
        if not os.path.lexists(_ADOPTED):
            _adopt()
        dead = _find_dead(owner, mappings)
        before = _read_record(_key(owner))
        undo.add(f"restore the host ports of {owner.container_id}", _restore, owner, before)
        _put(_Record(owner, where, tuple(mappings)), before)
        # Held as long as its rules may be missing.
        publishing = _lock_record(owner)
    try:
        yield dead
    finally:
        os.close(publishing)


def forget(dead: Owner) -> None:
    """Drop the record of a former holder whose rules are removed, unless it holds ports again."""
    with locked(_LOCK):
        record = _read_record(_key(dead))
        if record and not record.holds():
            _drop(dead)


def _lock_record(owner: Owner) -> int:
    path = f"{_OWNERS}/{_key(owner)}"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            raise
    except OSError as error:
        raise CniError(Code.STORE, f"could not lock {path}: {(error.strerror or '').lower()}") from error
    return fd


def _is_being_published(owner: Owner) -> bool:
    """Return whether an ADD that has claimed its ports is running."""
    try:
        os.close(_lock_record(owner))
    except CniError as error:
        return isinstance(error.__cause__, BlockingIOError)
    return False


def release(owner: Owner) -> None:
    """Release all ports of `owner`. It need not hold any."""
    if os.path.lexists(f"{_OWNERS}/{_key(owner)}") or os.path.lexists(f"{_OWNERS}/{_UNFINISHED}"):
        with locked(_LOCK):
            _drop(owner)


def list_held(owner: Owner) -> tuple[PortMapping, ...]:
    """Return the ports that `owner` has claimed. Container ports are not recorded and are 0."""
    record = _read_record(_key(owner))
    return record.mappings if record else ()


def is_of_this_release(owner: Owner) -> bool:
    """Return whether an ADD or a repair of this release has claimed the ports of `owner`."""
    record = _read_record(_key(owner))
    return record is not None and bool(record.where.view)


def differences(owner: Owner, mappings: Sequence[PortMapping], netns: str) -> list[str]:
    """Return the differences between what `owner` holds and `mappings`, [] for an unknown owner.

    Of imported ports only the numbers are known, so that they are not compared.
    """
    record = _read_record(_key(owner))
    if record is None or record.chain:
        return []
    held = {_show_port(each) for each in record.mappings}
    wanted = {_show_port(each): each for each in mappings}
    found = [f"host port {shown} is not claimed in {FOLDER}" for shown in wanted if shown not in held]
    for shown, mapping in wanted.items():
        holders = _read_holders(_port_path(mapping))
        if shown in held and (_key(owner), mapping.host_ip) not in holders:
            found.append(
                f"{_port_path(mapping)} does not name the container as a holder of host port {shown}"
            )
    now = identify(netns)
    if record.where.identity and now and record.where.identity != now:
        found.append(f"the host-port ledger was written in another network namespace, {record.where.netns}")
    return found


def _show_port(mapping: PortMapping) -> str:
    port = f"{mapping.host_port}/{mapping.protocol}"
    return f"{port} on {mapping.host_ip}" if mapping.host_ip else port


def list_live(network: str) -> list[Owner]:
    """List the network's holders that are not proven to be gone, as all those of an earlier boot are."""
    return [each.owner for each in _list_of_this_boot(network) if each.is_live()]


def list_placed(network: str) -> list[Owner]:
    """List the network's holders that have a known place and are not proven to be gone."""
    return [each.owner for each in _list_of_this_boot(network) if not each.chain and each.is_live()]


def _list_of_this_boot(network: str) -> list[_Record]:
    return [] if boot.is_earlier(FOLDER.parent) else _list_records(network)


def _list_records(network: str) -> list[_Record]:
    records = [_read_record(path.name) for path in sorted(_OWNERS.iterdir())] if _OWNERS.is_dir() else []
    return [each for each in records if each and each.owner.network == network]


def check_writable() -> None:
    """Raise CniError 106 if no claim can be written."""
    files.check_writable(_OWNERS)


def list_invalid(network: str, valid: Collection[Attachment]) -> list[Owner]:
    """List the network's holders that are not in `valid`."""
    owners = {Owner(network, each.container_id, each.ifname) for each in valid}
    # The ports of the Go plugins are found by their rules.
    held = [each.owner for each in _list_records(network) if not each.chain]
    return [owner for owner in held if owner not in owners]


def overlap(one: IpAddress | None, other: IpAddress | None) -> bool:
    """Return whether one packet can match both host addresses. None is every address of both families."""
    if one is None or other is None or one == other:
        return True
    return one.version == other.version and (one.is_unspecified or other.is_unspecified)


def _adopt() -> None:
    """Import published ports into the ledger: those of the Go plugins, or of a lost ledger."""
    from cni.hostports import import_go

    for each in import_go.find_published():
        if _read_record(_key(each.owner)) is None:
            _put(_Record(each.owner, Whereabouts(""), each.mappings, each.chain), None)
    files.ensure_directory(_ADOPTED)


def _find_dead(owner: Owner, mappings: Sequence[PortMapping]) -> list[Owner]:
    """Return the holders of these ports that hold nothing any more. Raise CniError 103 for another one."""
    dead: dict[Owner, None] = {}
    records: dict[str, _Record | None] = {}
    for mapping in mappings:
        for key, host_ip in _read_holders(_port_path(mapping)):
            if key not in records:
                records[key] = _read_record(key)
            holder = records[key]
            if holder is None or holder.owner.container_id == owner.container_id:
                continue
            if not overlap(mapping.host_ip, host_ip):
                continue
            if holder.owner not in dead and holder.holds():
                raise _taken(mapping, holder.owner, host_ip)
            dead[holder.owner] = None
    return list(dead)


def _taken(mapping: PortMapping, holder: Owner, host_ip: IpAddress | None) -> CniError:
    on = f" on {host_ip}" if host_ip else ""
    return CniError(
        Code.PORT_TAKEN,
        f"host port {mapping.host_port}/{mapping.protocol} is already published{on}"
        f' by container "{holder.container_id}"',
        f'its interface is {holder.ifname} on network "{holder.network}"; remove it, or publish another port',
    )


def _restore(owner: Owner, before: _Record | None) -> None:
    with locked(_LOCK):
        _drop(owner)
        if before:
            _put(before, None)


def _put(record: _Record, before: _Record | None) -> None:
    """Write a record and its ports. Release the ports of `before` that it does not hold any more."""
    key = _key(record.owner)
    # The record comes first, so that after a crash each held port has a record that releases it.
    old = before.mappings if before else ()
    _write_record(key, record, (*record.mappings, *old))
    held: dict[str, list[IpAddress | None]] = {_port_path(mapping): [] for mapping in old}
    for mapping in record.mappings:
        held.setdefault(_port_path(mapping), []).append(mapping.host_ip)
    for path, host_ips in held.items():
        _write_holders(path, key, host_ips)
    if old:
        _write_record(key, record, record.mappings)


def _drop(owner: Owner) -> None:
    key = _key(owner)
    record = _read_record(key)
    for mapping in record.mappings if record else ():
        _write_holders(_port_path(mapping), key, ())
    files.remove(f"{_OWNERS}/{key}")
    # With the lock held no other process writes these files: a crash has left them.
    for folder in (FOLDER, _OWNERS):
        if os.path.lexists(f"{folder}/{_UNFINISHED}"):
            files.remove(f"{folder}/{_UNFINISHED}")


def _key(owner: Owner) -> str:
    text = f"{owner.network}/{owner.container_id}/{owner.ifname}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _port_path(mapping: PortMapping) -> str:
    return f"{FOLDER}/{mapping.protocol}-{mapping.host_port}"


def _read_record(key: str) -> _Record | None:
    """Read the record of an attachment. Return None for an invalid one."""
    content = files.read(f"{_OWNERS}/{key}")
    try:
        record = json.loads(content or b"null")
        owner = Owner(str(record["network"]), str(record["containerID"]), str(record["ifname"]))
        ports = tuple(_parse_port(*each) for each in record["ports"])
        chain = str(record.get("chain", ""))
        return _Record(owner, _parse_whereabouts(record), ports, chain)
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _parse_whereabouts(record: dict[str, Any]) -> Whereabouts:
    """Read the place of a holder. A record of an earlier release has path and identity only."""
    host, links = record.get("host", 0), tuple(record.get("links", ()))
    if not all(isinstance(each, int) and 0 <= each < 1 << 31 for each in links) or not isinstance(host, int):
        raise ValueError(f"{links} of {host} are no links of a namespace")
    return Whereabouts(
        str(record["netns"]), tuple(record["identity"]), str(record.get("view", "")), host, links
    )


def _parse_port(protocol: str, port: object, host_ip: str) -> PortMapping:
    """Read a port of a record. Raise ValueError for an invalid one: it names files that are removed."""
    if protocol not in _PROTOCOLS or not isinstance(port, int) or not 0 < port < 1 << 16:
        raise ValueError(f"{protocol}-{port} is no port")
    return PortMapping(protocol, port, 0, _parse(host_ip))


def _write_record(key: str, record: _Record, mappings: Sequence[PortMapping]) -> None:
    content = {
        "network": record.owner.network,
        "containerID": record.owner.container_id,
        "ifname": record.owner.ifname,
        "netns": record.where.netns,
        "identity": record.where.identity,
        "view": record.where.view,
        "host": record.where.host,
        "links": record.where.links,
        **({"chain": record.chain} if record.chain else {}),
        "ports": [
            (each.protocol, each.host_port, str(each.host_ip or "")) for each in dict.fromkeys(mappings)
        ],
    }
    files.write_atomic(f"{_OWNERS}/{key}", json.dumps(content).encode(), beside=_UNFINISHED)


def _read_holders(path: str) -> list[tuple[str, IpAddress | None]]:
    content = files.read(path)
    try:
        return [(str(key), _parse(host_ip)) for key, host_ip in json.loads(content or b"[]")]
    except (ValueError, TypeError, RecursionError):
        return []


def _write_holders(path: str, key: str, host_ips: Sequence[IpAddress | None]) -> None:
    """Replace what `key` holds of a port. Remove the file of a port without a holder."""
    others = [each for each in _read_holders(path) if each[0] != key]
    content = [(name, str(host_ip or "")) for name, host_ip in [*others, *((key, each) for each in host_ips)]]
    if content:
        files.write_atomic(path, json.dumps(content).encode(), beside=_UNFINISHED)
    else:
        files.remove(path)


def _parse(text: str) -> IpAddress | None:
    return ip_address(text) if text else None
