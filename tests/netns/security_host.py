"""The chain of plugins for the tests of docs/security.md, on a host whose calls meet in one worker."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from cni.testing import Host, warm, why_no_namespaces
from tests.support import scene

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from cni.testing import Answer, Sandbox
    from cni.testing.zygote import Zygote

BACKENDS = ["iptables", "nftables"]


@contextmanager
def make_host(bindir: Path, zygote: Zygote | None = None) -> Iterator[Host]:
    """Yield a host on which one worker at a time waits for calls; a `zygote` forks cold calls."""
    if why_no_namespaces():
        pytest.skip(why_no_namespaces())
    with Host(bindir, zygote) as host:
        warm.set_up(host.place, workers=1)
        yield host


class Chain:
    """bridge, host-local and portmap with a published port, as a runtime calls them for one network."""

    def __init__(
        self, host: Host, backend: str = "nftables", port: int = 8080, keys: Mapping[str, Any] | None = None
    ) -> None:
        self.host = host
        conf = {"cniVersion": "1.0.0", "name": "net1", **(keys or {})}
        ipam = {"type": scene.IPAM, "ranges": [[{"subnet": "10.1.0.0/24"}]]}
        self._bridge = conf | {
            "type": scene.INTERFACE, "isGateway": True, "ipam": ipam,
            "ipMasq": True, "ipMasqBackend": backend,
        }  # fmt: skip
        published = {"hostPort": port, "containerPort": 80, "protocol": "tcp"}
        self._portmap = conf | {
            "type": scene.PORTS, "backend": backend, "runtimeConfig": {"portMappings": [published]},
        }  # fmt: skip

    def add(self, sandbox: Sandbox, **more: Any) -> Answer:
        """Attach and give the answer of the last plugin that was called: of the first that failed."""
        more = {"netns": sandbox, **more}
        answer = self.host.plugin(scene.INTERFACE, "ADD", self._bridge, **more)
        if not answer.ok:
            return answer
        return self.host.plugin(scene.PORTS, "ADD", self._portmap | {"prevResult": answer.json}, **more)

    def check(self, sandbox: Sandbox, result: dict[str, Any], **more: Any) -> None:
        for conf in (self._bridge, self._portmap):
            known = conf | {"prevResult": result}
            self.host.plugin(str(conf["type"]), "CHECK", known, netns=sandbox, **more).must()

    @property
    def gc(self) -> dict[str, Any]:
        """The configuration by which host-local forgets every attachment of the network."""
        return self._bridge | {"cniVersion": "1.1.0", "cni.dev/valid-attachments": []}

    def delete(self, sandbox: Sandbox | str, **more: Any) -> list[Answer]:
        return [
            self.host.plugin(str(conf["type"]), "DEL", conf, netns=sandbox, **more)
            for conf in (self._portmap, self._bridge)
        ]
