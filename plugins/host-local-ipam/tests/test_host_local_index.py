"""The index of a large pool agrees with the files, whichever program has changed them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.ipam.lease_index import FOLDER as INDEX
from cni.ipam.lease_index import MANY, LeaseIndex
from cni.ipam.leases import Leases
from cni.request import Attachment
from cni.testing.host import GO

if TYPE_CHECKING:
    from cni.testing import Host
    from cni.testing.answer import Answer

POOL = Path("/var/lib/cni/networks/net")
CONF: dict[str, Any] = {
    "cniVersion": "1.0.0", "name": "net", "type": "host-local",
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.0.0/16"}]]},
}  # fmt: skip
TURNS = 60
# So many that a pool has an index after any turns. The second suite deletes each at the end.
LEASES = MANY + TURNS


def call(host: Host, verb: str, name: str, bindir: Path | None = None, **keys: Any) -> Answer:
    return host.plugin(
        "host-local", verb, CONF | keys, netns="/run/netns/none", container_id=name, bindir=bindir
    )


def fill() -> None:
    POOL.mkdir(parents=True)
    for number in range(LEASES):
        (POOL / f"10.1.1.{number}").write_bytes(f"c{number}\r\neth0".encode())


def wrong() -> tuple[bool, list[str]]:
    """Return whether the index counts, and for which containers it does not say what the files say."""
    leases = Leases(POOL)
    files = leases.list_all()
    names = {each.container_id for each in files} | {f"c{number}" for number in range(LEASES + TURNS)}
    found = []
    for name in sorted(names):
        said = sorted(each.path for each in leases.list_of(Attachment(name, "eth0")))
        if said != sorted(each.path for each in files if each.container_id == name):
            found.append(f"{name}: {said}")
    return LeaseIndex(POOL).look(), found


@pytest.mark.long
@pytest.mark.interop
@pytest.mark.skipif(not (GO / "host-local").exists(), reason="no Go plugins in /usr/lib/cni")
def test_go_and_ours_in_turn_at_random(host: Host, mode: str) -> None:
    chance = random.Random(3)  # noqa: S311 - the same turns each time
    turns = TURNS if mode == "warm" else TURNS // 4
    host.call(fill)
    there, counted = [f"c{number}" for number in range(LEASES)], 0
    for turn in range(turns):
        bindir = chance.choice([None, None, GO])
        if chance.random() < 0.5:
            there.append(f"c{LEASES + turn}")
            call(host, "ADD", there[-1], bindir).must()
        else:
            call(host, "DEL", there.pop(chance.randrange(len(there))), bindir).must()
        is_current, found = host.call(wrong)
        assert found == [], f"turn {turn}"
        counted += is_current
        assert is_current is (bindir is None)
    assert turns // 3 < counted < turns
    # A second ADD for an existing lease is refused by the suite that made the lease.
    for name in there[-4:]:
        assert call(host, "ADD", name).code == 105
    for name in there:
        call(host, "DEL", name, GO).must()
    assert host.call(Leases(POOL).list_all) == []


def lose_links() -> None:
    for link in INDEX.glob("*/*"):
        link.unlink()


def test_a_cache_without_its_links_neither_leaks_nor_gives_twice(host: Host) -> None:
    host.call(fill)
    call(host, "ADD", "new").must()
    [lease] = [each for each in host.call(Leases(POOL).list_all) if each.container_id == "new"]
    host.call(lose_links)
    assert call(host, "ADD", "new").code == 105
    host.call(lose_links)
    call(host, "DEL", "new").must()
    assert not host.call(Path(lease.path).exists)


def give_away(path: str, name: str) -> None:
    """Replace a lease in place, by hand and unlocked, of which no folder tells."""
    Path(path).write_bytes(f"{name}\r\neth0".encode())
    assert LeaseIndex(POOL).look()


def test_del_and_check_look_at_the_addresses_of_the_result(host: Host) -> None:
    host.call(fill)
    result = call(host, "ADD", "first").must()
    path = f"{POOL}/{result['ips'][0]['address'].split('/')[0]}"
    host.call(give_away, path, "second")
    call(host, "CHECK", "second", prevResult=result).must()
    assert call(host, "CHECK", "first", prevResult=result).code == 104
    call(host, "DEL", "first", prevResult=result).must()
    assert host.call(Path(path).exists)
    call(host, "DEL", "second", prevResult=result).must()
    assert not host.call(Path(path).exists)


def look() -> bool:
    return LeaseIndex(POOL).look()


def test_a_pool_with_a_lease_that_cannot_be_read_has_no_cache(host: Host) -> None:
    """Else the lease would be missing when it can be read again, as nothing has changed in the folder."""
    host.call(fill)
    path = str(POOL / "10.1.1.7")
    bind = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    host.run(["python3", "-c", bind, "/run/none"])
    # What has the name can be seen but not be opened.
    host.run(["mount", "--bind", "/run/none", path])
    call(host, "DEL", "nobody").must()
    assert not host.call(look)
    host.run(["umount", path])
    call(host, "DEL", "nobody").must()
    assert host.call(look)
    call(host, "DEL", "c7").must()
    assert not host.call(Path(path).exists)
    assert len(host.call(Leases(POOL).list_all)) == LEASES - 1
