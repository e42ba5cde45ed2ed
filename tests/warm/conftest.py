"""A host whose plugins are served warm, and one more plugin that misbehaves."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from cni.testing.executables import make_warm_bindir
from cni.testing.server_zygote import ServerZygote
from cni.warm import control
from plugin_table import declared, packages
from tests.support.patience import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.testing import Answer

ODD = Path(__file__).parent / "odd"
# On a busy machine a server looks idle for so long that it would replace a worker of the test.
NEVER_S = 3600


class WarmHost(Host):
    """A host with the state of its server."""

    def settings(self, **settings: Any) -> None:
        """Replace the settings of servers that will be started; the keys are those of warm.json."""
        text = json.dumps({"idleSeconds": 120, "restSeconds": NEVER_S} | settings)
        self.run(["sh", "-c", f"echo '{text}' > /etc/cni/pycni/warm.json"])

    def status(self) -> dict[str, Any]:
        """Return the status of the one server that runs here, when all calls have been counted."""
        [server] = self.call(control.find)
        told: dict[str, Any] = {}

        def is_idle() -> bool:
            told.update(self.call(control.status, server))
            return told.get("busy") == 0

        wait_until(is_idle)
        return told

    def status_of(self, pid: int) -> dict[str, Any]:
        """Return the status of one of several servers."""
        [server] = [each for each in self.call(control.find) if each.pid == pid]
        return self.call(control.status, server)

    def servers(self) -> list[int]:
        return [server.pid for server in self.call(control.find)]

    def log(self) -> str:
        return self.run(["cat", "/run/pycni/warm/log"], check=False)

    def await_log(self, text: str) -> None:
        """Wait until the log has a text: a process may write it after the launcher has its answer."""
        wait_until(lambda: text in self.log())

    def await_idle(self) -> None:
        """Wait until the one server has a worker, and no worker is busy with the call before.

        The leak check of a call and its background work go on after its answer. A call that comes meanwhile
        needs one more worker.
        """
        wait_until(lambda: self.status()["workers"])

    def odd(self, do: str = "", **more: Any) -> Answer:
        """Let the plugin that misbehaves do a thing."""
        conf = {"cniVersion": "1.0.0", "name": "n", "type": "odd", "do": do}
        return self.plugin("odd", "ADD", conf, netns="/run/netns/none", **more)

    def waited_s(self, **more: Any) -> tuple[float, dict[str, str]]:
        """Make a call that is cold. Return the seconds for which its process waited, and the facts.

        The process is that of the launcher. The seconds in which it ran, or waited for a core, do not count.
        """
        facts, waited = self.odd("show waiting", **more).stderr.splitlines()
        return float(waited), json.loads(facts)

    def facts(self, do: str = "", **more: Any) -> dict[str, str]:
        """Return the facts about the process that it ran in, recorded before the action."""
        told: dict[str, str] = json.loads(self.odd(do, **more).stderr.splitlines()[0])
        return told


@contextmanager
def _odd_found() -> Iterator[dict[str, str]]:
    """Let what is made in the context find the plugin that misbehaves. Yield the table of plugins."""
    sys.path.insert(0, str(ODD))
    try:
        yield packages(declared()) | {"odd": "cni_odd"}
    finally:
        sys.path.remove(str(ODD))


@pytest.fixture(scope="session")
def odd_bindir(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with _odd_found() as table:
        return make_warm_bindir(tmp_path_factory.mktemp("odd"), table, launcher)


@pytest.fixture(scope="session")
def forked_servers(launcher: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield executables whose servers are forked: the imports of a server take 0.3 s of CPU."""
    with _odd_found() as table:
        bindir = make_warm_bindir(tmp_path_factory.mktemp("forked"), table, launcher)
        zygote = ServerZygote(bindir)
    with zygote:
        yield bindir


@pytest.fixture
def warm_host(request: pytest.FixtureRequest) -> Iterator[WarmHost]:
    """Yield a host on which one worker at a time waits, so that two calls meet the same one if they can.

    Its server is forked if the test has the mark `forked`: for tests of workers and of what they refuse.
    """
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    is_forked = request.node.get_closest_marker("forked")
    with WarmHost(request.getfixturevalue("forked_servers" if is_forked else "odd_bindir")) as host:
        warm.set_up(host.place, workers=1, restSeconds=NEVER_S)
        yield host
