"""The folders of the records: the server lists those that have changed, and misses no change."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cni.dns import records
from cni.dns.client import HELPER, A, ask
from cni.dns.names import Key, Record, Settings
from tests.names_world import Network, fill, servers
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

_GATEWAY = "10.1.0.1"
_NAMES = 320
# Longer than the server takes a folder for changed just now.
_SETTLED_S = 0.1


def _addresses(host: Host, name: str) -> tuple[str, ...]:
    """Return what the host is answered."""
    answer = host.call(ask, _GATEWAY, name, A)
    assert answer
    return answer.addresses


def test_changes_at_the_same_moment_are_all_seen(host: Host) -> None:
    Network(host, upstreams=[]).attach("web")
    assert host.call(_change_often) == []


def _change_often() -> list[str]:
    """Publish and withdraw names, several while the kernel's clock stands; return what the server missed."""
    settings = Settings("often.test", (_GATEWAY,), ("10.1.0.0/24",))
    # All records are of one folder.
    key = Key("often", "c9", "eth0")
    missed = []
    for number in range(200):
        name, address = f"name-{number}", f"10.1.0.{number + 2}"
        records.publish(Record(key, (name,), (address,), settings, number, "", HELPER.key))
        HELPER.wake(until_done=True)
        answer = ask(_GATEWAY, f"{name}.often.test", A)
        if not answer or answer.addresses != (address,):
            missed.append(f"{name} published: {answer}")
        if number % 2:
            records.withdraw(key)
            HELPER.wake(until_done=True)
            answer = ask(_GATEWAY, f"{name}.often.test", A)
            if not answer or answer.addresses:
                missed.append(f"{name} withdrawn: {answer}")
    return missed


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_the_server_lists_only_folders_that_have_changed(host: Host, tmp_path: Path) -> None:
    net = Network(host)
    net.attach("web")
    host.call(fill, 1, _NAMES, host.call(lambda: HELPER.key))
    late, later = net.prepare("late"), net.prepare("later")
    time.sleep(_SETTLED_S)
    net.call("ADD", late).must()
    assert _addresses(host, f"name-{_NAMES - 1}.n0.test")
    time.sleep(_SETTLED_S)
    [(_, helper)] = servers(host)
    log = tmp_path / "log"
    command = ["strace", "-qq", "-f", "-y", "-o", str(log), "-e", "trace=getdents64", "-p", str(helper)]
    with subprocess.Popen(command) as tracer:
        wait_until(lambda: "TracerPid:\t0\n" not in Path(f"/proc/{helper}/status").read_text())
        net.call("ADD", later).must()
        tracer.terminate()
    listed = set(re.findall(rf"<{records.FOLDER}(/?[^>]*)>", log.read_text()))
    own, before = (
        hashlib.sha256(f"{each.container_id}\0{each.ifname}".encode()).hexdigest()[0]
        for each in (later, late)
    )
    # A folder that had changed shortly before is listed once more.
    assert {"", f"/{own}"} <= listed <= {"", f"/{own}", f"/{before}"}
    assert host.run(["ls", str(records.FOLDER)]).split() == list("0123456789abcdef")


def test_folders_that_are_gone_or_dated_ahead_hide_no_change(host: Host) -> None:
    net = Network(host, upstreams=[])
    web = net.attach("web")
    host.run(["sh", "-c", f"touch -d '2100-01-01' {records.FOLDER}/*"])
    other = net.attach("other")
    assert _addresses(host, "other.net1.test") == (other.addresses[0],)
    host.run(["rm", "-r", str(records.FOLDER)])
    third = net.attach("third")
    assert _addresses(host, "third.net1.test") == (third.addresses[0],)
    assert _addresses(host, "web.net1.test") == ()
    assert net.call("PYCNI_REPAIR", web).ok
    assert _addresses(host, "web.net1.test") == (web.addresses[0],)
