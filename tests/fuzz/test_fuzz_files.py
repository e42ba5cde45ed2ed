"""Whatever is in the files that plugins share with each other and with runtimes."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from cni.errors import CniError, Code
from cni.firewall import owners
from cni.firewall.intents import Owner
from cni.firewall.nftables import records
from cni.hostports import ledger
from cni.ipam import lease_index
from cni.ipam.leases import Leases
from cni.request import Attachment
from cni.runtime import cache, conflists, inventory
from cni.runtime.network import bridges, subnets
from cni.service import status as status_file
from cni.warm import settings
from tests.fuzz import configurations, inputs, plants
from tests.fuzz.cases import cases, judge
from tests.fuzz.place import FOLDER, NETNS, RESOLV_CONF, call, environment, footprint, restored
from tests.fuzz.plants import Plant, contents, documents, planted
from tests.support import scene
from tests.support.subjects import PLUGINS

if TYPE_CHECKING:
    from collections.abc import Callable

    from cni.testing import Host
    from tests.fuzz.conftest import Fuzz

VALID = {"cni.dev/valid-attachments": [{"containerID": "c2", "ifname": "eth0"}]}
OWNER = Owner("net1", "c1", "eth0")
LEASES = FOLDER / "leases"
SMALL = {"type": scene.IPAM, "dataDir": str(LEASES), "ranges": [[{"subnet": "10.1.0.0/29"}]]}
HOST_LOCAL = {"cniVersion": "1.1.0", "name": "net1", "ipam": SMALL}

HOLDERS = st.sampled_from(
    [b"c1\r\neth0", b"c1", b"c2\r\neth0", b"c3", b"", b"c1\neth0", b"\xff\r\n\xff", b" "]
)
LEASE_NAMES = st.sampled_from(["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.9.0.1", "x y"])
LASTS = st.sampled_from([b"10.1.0.3", b"10.1.0.6\n", b"fd00::1", b"10.1.0.300", b"\xff"])
OTHERS = ["last_reserved_ip.0", "lock", ".unfinished-lease", ".unfinished-ab12", "last_reserved_ip.x"]
LEASE_FILES = st.dictionaries(LEASE_NAMES, contents(HOLDERS), max_size=6)
OTHER_FILES = st.dictionaries(st.sampled_from(OTHERS), contents(LASTS), max_size=2)


def _lives(name: str, conf: dict[str, Any]) -> bool:
    """Call all verbs with the files that are there; DEL must undo what ADD accepts."""
    added = judge(call(name, environment("ADD"), conf), "ADD")
    previous = conf | ({"prevResult": added.json} if added.ok else {})
    checked = judge(call(name, environment("CHECK"), previous), "CHECK")
    assert checked.ok or not added.ok, checked
    judge(call(name, environment("STATUS"), conf), "STATUS")
    removed = judge(call(name, environment("DEL"), conf), "DEL")
    assert removed.ok or not added.ok, removed
    judge(call(name, environment("GC"), conf | VALID), "GC")
    return added.ok


def _leases(files: dict[str, Plant], others: dict[str, Plant]) -> bool:
    with planted(LEASES / "net1", files | others):
        is_accepted = _lives(scene.IPAM, HOST_LOCAL)
        held = Leases(LEASES / "net1").list_held_by(Attachment("c1", "eth0")) if is_accepted else []
        assert not [lease for lease in held if lease.ifname]
    return is_accepted


LARGE = {f"10.1.{number}.9": f"c{number}\r\neth0".encode() for number in range(1, 40)}
LARGE_CONF = HOST_LOCAL | {"ipam": SMALL | {"ranges": [[{"subnet": "10.1.0.0/16"}]]}}
TARGETS = st.sampled_from(["10.1.1.9", "10.1.77.9", "../../x", "a/b", ".", "\udcff", "x" * 2000])


def _lease_index(changes: list[str | Plant]) -> bool:
    """Change the index of a large pool while its stamp still says that it is good."""
    with planted(LEASES / "net1", LARGE):
        judge(call(scene.IPAM, environment("ADD", CNI_CONTAINERID="c99"), LARGE_CONF), "ADD")
        links = sorted(lease_index.FOLDER.glob("*/*"))
        assert len(links) > len(changes)
        for path, change in zip(links, changes, strict=False):
            plants.remove(path)
            if isinstance(change, str) and change not in {plants.FOLDER, plants.FIFO}:
                path.symlink_to(change)
            else:
                plants.plant(path, change)
        index = lease_index.LeaseIndex(LEASES / "net1")
        index.is_current = True
        index.seal()
        is_accepted = _lives(scene.IPAM, LARGE_CONF)
        plants.remove(lease_index.FOLDER)
    return is_accepted


def _resolv_conf(content: Plant) -> bool:
    path = FOLDER / "other.conf"
    plants.plant(path, content)
    try:
        return _lives(scene.IPAM, HOST_LOCAL | {"ipam": SMALL | {"resolvConf": str(path)}})
    finally:
        plants.remove(path)
        plants.remove(LEASES)


RESOLV_CONFS = st.lists(
    st.sampled_from([RESOLV_CONF.read_bytes() if RESOLV_CONF.exists() else b"nameserver 192.0.2.1\n"])
    | st.sampled_from([b"search\n", b"domain a b\n", b"#\n", b"options \xff\x00\n", b"nameserver\tx\r"]),
    max_size=4,
).map(b"".join)

KEY = ledger._key(OWNER)  # noqa: SLF001 - the name of the file
OTHER_KEY = "0" * 32
RECORD = st.fixed_dictionaries(
    {
        "network": st.just("net1"),
        "containerID": st.sampled_from(["c1", "c2"]),
        "ifname": st.just("eth0"),
        "netns": st.sampled_from([NETNS, "/run/netns/gone", "", "x\0y"]),
        "identity": st.sampled_from([[], [1, 2], [0]]),
        "ports": st.lists(
            st.sampled_from([["tcp", 8080, ""], ["udp", 53, "::"], ["../x", 1, "y"]]), max_size=2
        ),
    }
)
HELD = st.lists(
    st.sampled_from([[KEY, ""], [OTHER_KEY, "::"], [OTHER_KEY, "192.0.2.1"], ["x", "y"]]), max_size=3
)
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        f"by-owner/{KEY}": documents(RECORD),
        f"by-owner/{OTHER_KEY}": documents(RECORD),
        "tcp-8080": documents(st.builds(lambda held: {"": held}, HELD))
        | contents(HELD.map(lambda held: json.dumps(held).encode())),
    },
)
ELEMENT = [2, "ports", "06000000" + "1f900000", "0a010009", "host port 8080/tcp"]
ODD_ELEMENTS = [[ELEMENT[:3]], [[2, "", "zz", "", ""]], 1, [[10**30, "x", "", "", ""]]]
RECORDS = st.dictionaries(
    st.sampled_from([f"{owners.tag(OWNER)}.forward", f"{owners.tag(OWNER)}.masquerade", "x"]),
    documents(st.sampled_from([[], [ELEMENT], [ELEMENT], *ODD_ELEMENTS])),
    max_size=2,
)
PORTMAP = {
    "cniVersion": "1.1.0", "name": "net1", "backend": "nftables",
    "prevResult": {"cniVersion": "1.1.0", "ips": [{"address": "10.1.0.9/16"}]},
    "runtimeConfig": {"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]},
}  # fmt: skip


def _portmap(folder: Path, files: dict[str, Plant]) -> bool:
    with restored() as before, planted(folder, files):
        is_accepted = _lives(scene.PORTS, PORTMAP)
        rules = {line for line in footprint().own if not line.startswith("/")}
        assert rules == {line for line in before.own if not line.startswith("/")}
    return is_accepted


ENTRY = st.fixed_dictionaries(
    {"kind": st.just(cache.KIND), "containerId": st.just("c1"), "ifName": st.just("eth0")},
    optional={
        "networkName": st.just("net1"),
        "netns": st.sampled_from([NETNS, "/run/netns/gone", "x\0y"]),
        "config": st.sampled_from([base64.b64encode(b"{}").decode(), "x", ""]),
        "cniArgs": st.just([["a", "b"]]),
        "capabilityArgs": st.just({"portMappings": [{"hostPort": 1, "containerPort": 2}]}),
        "result": inputs.VERSIONS.flatmap(inputs.results),
    },
)


def _runtime_cache(content: Plant) -> bool:
    folder = FOLDER / "cache"
    with planted(folder / "results", {"net1-c1-eth0": content}):
        kept = cache.Cache(folder)
        entries = kept.list_entries()
        inventory.take([], entries, LEASES)
        for entry in entries:
            assert cache.parse_entry(json.loads(cache.show_entry(entry)), Path("x")) == entry
        return _is_read(lambda: kept.read("net1", Attachment("c1", "eth0")))


CONFLIST = st.fixed_dictionaries(
    {"cniVersion": inputs.VERSIONS, "name": st.sampled_from(["net1", "../x", "a/b"])},
    optional={
        "plugins": st.lists(st.one_of([configurations.valid(name) for name in PLUGINS]), max_size=2),
        "cniVersions": st.lists(inputs.VERSIONS, max_size=2),
        "disableCheck": st.sampled_from([True, "false", "x"]),
        "disableGC": inputs.FLAGS,
        "loadOnlyInlinedPlugins": inputs.FLAGS,
    },
)


def _conflists(files: dict[str, Plant]) -> bool:
    folder = FOLDER / "net.d"
    with planted(folder, files):
        for found in conflists.load_all(folder):
            if not isinstance(found, conflists.Broken):
                assert isinstance(subnets(found), list)
                assert isinstance(bridges(found), list)
        return _is_read(lambda: conflists.find(folder, "net1"))


SETTINGS = inputs.some(
    workers=st.integers(-1, 40),
    calls=st.integers(0, 9),
    idleSeconds=st.integers(0, 9),
    answerDel=st.just("ack"),
)


def _warm_settings(content: Plant, status: Plant) -> bool:
    plants.plant(settings.FILE, content)
    path = FOLDER / "x.status"
    plants.plant(path, status)
    assert status_file.holder(str(path)) == 0
    assert isinstance(status_file.read(str(path)), dict)
    return _is_read(settings.load)


def _is_read(read: Callable[[], object]) -> bool:
    """Return whether a file is taken; it must be or be refused with a code."""
    try:
        read()
    except CniError as error:
        refusal = error
    else:
        return True
    assert refusal.code != Code.INTERNAL, refusal
    return False


def test_leases(fuzz: Fuzz, host: Host) -> None:
    fuzz.run_inside(host, cases(0.3, files=LEASE_FILES, others=OTHER_FILES)(_leases))


def test_the_index_of_leases(fuzz: Fuzz, host: Host) -> None:
    changes = st.lists(TARGETS | contents(HOLDERS), max_size=8)
    fuzz.run_inside(host, cases(0.1, changes=changes)(_lease_index))


def test_resolv_conf(fuzz: Fuzz, host: Host) -> None:
    fuzz.run_inside(host, cases(0.1, content=contents(RESOLV_CONFS))(_resolv_conf))


def test_claims_of_host_ports(fuzz: Fuzz, host: Host) -> None:
    fuzz.run_inside(host, cases(0.1, files=CLAIMS)(_portmap), ledger.FOLDER)


def test_records_of_nftables(fuzz: Fuzz, host: Host) -> None:
    fuzz.run_inside(host, cases(0.1, files=RECORDS)(_portmap), records.FOLDER)


def test_the_cache_of_runtimes(fuzz: Fuzz, host: Host) -> None:
    fuzz.run_inside(host, cases(0.1, content=documents(ENTRY))(_runtime_cache))


def test_networks(fuzz: Fuzz, host: Host) -> None:
    files = st.dictionaries(
        st.sampled_from(["1.conflist", "2.conf", "3.json"]), documents(CONFLIST), max_size=3
    )
    fuzz.run_inside(host, cases(0.1, files=files)(_conflists))


def test_a_warm_server_survives_any_settings(fuzz: Fuzz, host: Host) -> None:
    try_all = cases(0.1, content=documents(SETTINGS), status=documents(st.just({"asked": 1})))(_warm_settings)
    fuzz.run_inside(host, try_all)
