"""Many runtimes at once, kills at random, and in the end nothing is left but what attachments share.

PYCNI_CHURN_S says for how many seconds each of the tests goes on; `make soak` sets it. Otherwise the time
grows with the load of the machine, so that a test does as much as on an idle one, up to a limit.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from cni.request import Attachment
from cni.testing import Host, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from plugin_table import declared, packages
from tests.churn import churn, world
from tests.support import subjects
from tests.support.patience import patience

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cni.testing import Snapshot
    from tests.churn.churn import Churned
    from tests.churn.worker import Left

_SECONDS, _MOST_SECONDS = 2, 7
_GROWTH_KIB = 1500
# A place for each worker that there may be, each with a socket, and what the server has at its start.
_MOST_FILES = 64 + 24


@pytest.fixture
def churned(launcher: Path, tmp_path: Path) -> Iterator[Host]:
    """Return a host with sandboxes, on which each network has been used once."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(make_warm_bindir(tmp_path, packages(declared()), launcher)) as host:
        warm.set_up(host.place)
        subjects.prepare(host, *world.PLUGINS)
        host.call(world.prepare, host.bindir, churn.WORKERS)
        yield host


def _differences(before: Snapshot, host: Host) -> list[str]:
    # The index of large pools is a cache of its folder.
    found = before.differences(host.snapshot())
    return [line for line in found if "/run/pycni/leases/" not in line]


def _check_server(done: Churned) -> None:
    assert done.middle is not None
    assert done.end is not None
    assert done.end.pid == done.middle.pid
    assert done.end.memory_kib - done.middle.memory_kib < _GROWTH_KIB
    assert done.end.files <= _MOST_FILES
    assert done.end.threads == 1


def _churn(host: Host, note: Callable[[str, object], None], what: str, *, abandons: bool) -> Churned:
    seconds = float(os.environ.get("PYCNI_CHURN_S") or min(patience(_SECONDS), _MOST_SECONDS))
    done = host.call(churn.churn, host.bindir, seconds, abandons=abandons)
    note("figures", ["churn", what, done.figures])
    assert done.unexpected == [], f"{len(done.unexpected)}: {'; '.join(done.unexpected[:5])}"
    assert done.killed.total()
    _check_server(done)
    return done


def _check_attached(bindir: Path, attached: list[Left]) -> None:
    for each in attached:
        world.runtime(bindir).check(world.NETWORKS[each.network], world.told(each.container_id, each.sandbox))


def _delete(bindir: Path, attached: list[Left]) -> None:
    for each in attached:
        world.runtime(bindir).delete(
            world.NETWORKS[each.network], world.told(each.container_id, each.sandbox)
        )


def _collect(bindir: Path, attached: list[Left]) -> None:
    for number, network in enumerate(world.NETWORKS):
        valid = [Attachment(each.container_id, world.IFNAME) for each in attached if each.network == number]
        world.runtime(bindir).gc(network, valid)


@pytest.mark.long
def test_del_after_kills_leaves_nothing(
    churned: Host, record_property: Callable[[str, object], None]
) -> None:
    before = churned.snapshot()
    done = _churn(churned, record_property, "DEL", abandons=False)
    churned.call(_check_attached, churned.bindir, done.attached)
    churned.call(_delete, churned.bindir, done.attached)
    assert _differences(before, churned) == []
    assert churned.call(world.links_in_sandboxes) == []


@pytest.mark.long
def test_gc_after_kills_leaves_what_is_valid(
    churned: Host, record_property: Callable[[str, object], None]
) -> None:
    before = churned.snapshot()
    done = _churn(churned, record_property, "GC", abandons=True)
    churned.call(_collect, churned.bindir, done.attached)
    churned.call(_check_attached, churned.bindir, done.attached)
    churned.call(_delete, churned.bindir, done.attached)
    churned.call(world.make_sandbox, f"{churn.WORKERS}.0")
    churned.call(world.use_each_network, churned.bindir, f"{churn.WORKERS}.0")
    assert _differences(before, churned) == []
    assert churned.call(world.links_in_sandboxes) == []
