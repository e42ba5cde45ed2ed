"""Whole processes, many at a time, and the Go plugin on the same pool."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing.executables import make_bindir
from cni.testing.host import GO, Host
from cni.testing.place import why_no_namespaces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cni.testing.answer import Answer

needs_go = [
    pytest.mark.interop,
    pytest.mark.skipif(not (GO / "host-local").exists(), reason="no Go plugins in /usr/lib/cni"),
]
FOLDER = "/var/lib/cni/networks/net"


@pytest.fixture(scope="module")
def bindir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bindir(tmp_path_factory.mktemp("ours"), {"host-local": "cni_host_local_ipam"})


@pytest.fixture
def host(bindir: Path) -> Iterator[Host]:
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir) as made:
        yield made


def conf(subnet: str = "10.1.0.0/24", version: str = "1.0.0", **others: Any) -> dict[str, Any]:
    ipam = {"type": "host-local", "ranges": [[{"subnet": subnet}]]}
    return {"cniVersion": version, "name": "net", "type": "host-local", "ipam": ipam} | others


def run(host: Host, verb: str, container_id: str, bindir: Path | None = None, **others: Any) -> Answer:
    stdin = json.dumps(conf(**others))
    return host.plugin(
        "host-local", verb, stdin, netns="/run/netns/no", container_id=container_id, bindir=bindir
    )


def files(host: Host) -> dict[str, bytes]:
    return host.call(_files)


def _files() -> dict[str, bytes]:
    from pathlib import Path

    return {each.name: each.read_bytes() for each in Path(FOLDER).iterdir()}


def test_32_processes_at_once_get_32_addresses(host: Host) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: run(host, "ADD", f"c{number}"), range(32)))
        given = [address for answer in answers for address in (answer.must() and answer.addresses)]
        assert sorted(given, key=lambda each: int(each.split(".")[-1])) == [
            f"10.1.0.{n}" for n in range(2, 34)
        ]
        released = list(pool.map(lambda number: run(host, "DEL", f"c{number}"), range(32)))
    assert all(answer.ok and not answer.stdout for answer in released)
    assert set(files(host)) == {"lock", "last_reserved_ip.0"}


def test_processes_that_fight_for_the_last_addresses_lose_in_words(host: Host) -> None:
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda number: run(host, "ADD", f"c{number}", subnet="10.1.0.0/29"), range(12))
        )
    given = [answer.addresses[0] for answer in answers if answer.ok]
    assert sorted(given) == [f"10.1.0.{last}" for last in range(2, 7)]
    assert {answer.code for answer in answers if not answer.ok} == {102}


def test_processes_that_fail_together_leave_no_folder(host: Host) -> None:
    """Each may remove the folder that it made while others wait for the lock in it."""
    asked = {"runtimeConfig": {"ips": ["10.9.9.9"]}}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: run(host, "ADD", f"c{number}", **asked), range(8)))
    assert {answer.msg for answer in answers} == {"failed to allocate all requested IPs: 10.9.9.9"}
    assert run(host, "ADD", "last").addresses == ["10.1.0.2"]


def test_a_held_lock_is_waited_for(host: Host) -> None:
    run(host, "ADD", "c0").must()
    holder = host.place.popen(["flock", f"{FOLDER}/lock", "sleep", "0.5"])
    assert run(host, "ADD", "c1").addresses == ["10.1.0.3"]
    assert holder.wait() == 0
    assert holder.stdout is not None
    assert holder.stderr is not None
    holder.stdout.close()
    holder.stderr.close()


class TestBothSuitesOnOnePool:
    pytestmark = needs_go

    def test_they_take_turns_in_one_ring(self, host: Host) -> None:
        given = []
        for number in range(6):
            given += run(host, "ADD", f"c{number}", GO if number % 2 else None).addresses
        assert given == [f"10.1.0.{last}" for last in range(2, 8)]
        assert files(host)["10.1.0.2"] == b"c0\r\neth0"
        assert files(host)["10.1.0.3"] == b"c1\r\neth0"
        assert files(host)["last_reserved_ip.0"] == b"10.1.0.7"

    def test_each_checks_and_releases_what_the_other_gave(self, host: Host) -> None:
        run(host, "ADD", "ours").must()
        run(host, "ADD", "theirs", GO).must()
        run(host, "CHECK", "ours", GO).must()
        run(host, "CHECK", "theirs").must()
        run(host, "DEL", "ours", GO).must()
        run(host, "DEL", "theirs").must()
        assert set(files(host)) == {"lock", "last_reserved_ip.0"}

    def test_each_refuses_what_the_other_gave(self, host: Host) -> None:
        asked = {"runtimeConfig": {"ips": ["10.1.0.9"]}}
        run(host, "ADD", "ours", **asked).must()
        assert "10.1.0.9 is not available" in run(host, "ADD", "theirs", GO, **asked).msg
        asked = {"runtimeConfig": {"ips": ["10.1.0.8"]}}
        run(host, "ADD", "theirs", GO, **asked).must()
        assert "held by container theirs" in run(host, "ADD", "ours2", **asked).msg
        assert "duplicate allocation" in run(host, "ADD", "ours", GO).msg
        assert "duplicate allocation" in run(host, "ADD", "theirs").msg

    def test_16_of_each_at_once_share_no_address(self, host: Host) -> None:
        def churn(number: int) -> list[str]:
            bindir = GO if number % 2 else None
            first = run(host, "ADD", f"c{number}", bindir)
            first.must()
            run(host, "DEL", f"c{number}", None if number % 2 else GO).must()
            second = run(host, "ADD", f"c{number}", bindir)
            second.must()
            return second.addresses

        with ThreadPoolExecutor(32) as pool:
            given = [address for each in pool.map(churn, range(32)) for address in each]
        assert len(set(given)) == 32
        leases = {name: text for name, text in files(host).items() if name.startswith("10.")}
        assert set(leases) == set(given)
        assert set(leases.values()) == {f"c{number}\r\neth0".encode() for number in range(32)}

    @pytest.mark.parametrize("subnet", ["10.1.0.0/29", "fd00::/125"])
    def test_the_order_is_the_same_in_a_pool_of_its_own(self, host: Host, subnet: str) -> None:
        """A walk round the ring with gaps: ADD and DEL in the same order by each suite."""
        steps = ["a0", "a1", "a2", "d1", "a3", "a4", "a5", "d0", "d3", "a6", "a7", "a8", "d6", "d7", "a9"]
        answers: dict[str, list[list[str]]] = {"ours": [], "theirs": []}
        for suite, bindir in (("ours", None), ("theirs", GO)):
            for step in steps:
                verb = "ADD" if step[0] == "a" else "DEL"
                answer = run(host, verb, step[1:], bindir, subnet=subnet, name=suite)
                answers[suite].append([*answer.addresses, answer.msg])
        assert answers["ours"] == answers["theirs"]
