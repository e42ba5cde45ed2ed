"""Debian's podman with its CNI backend on a test's host: plugins of given directories attach containers.

No image is needed: each container runs a static busybox in a folder made here, which serves /index.html.
Needs the packages podman, crun and busybox-static, and root.
"""

from __future__ import annotations

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from cni.testing.place import BARE_ENV, CommandError
from tests.support.containerd import BUSYBOX, PAGE, SERVE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni.testing.host import Host

# Control groups, profiles of security modules and limits beyond this process's own are the machine's.
_CONTAINERS_CONF = """
[containers]
apparmor_profile = "unconfined"
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
label = false
log_driver = "k8s-file"
[network]
network_backend = "cni"
network_config_dir = "{confdir}"
cni_plugin_dirs = {plugin_dirs}
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
"""
_STORAGE_CONF = """
[storage]
driver = "vfs"
graphroot = "{folder}/storage"
runroot = "/run/containers/storage"
"""


def why_no_podman() -> str:
    """Return why containers cannot run here; "" if they can."""
    missing = [name for name in ("podman", "crun", "busybox") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "podman as root is what is tested"


class Podman:
    """A private podman, whose containers end with the context; `folder` is an empty directory for it.

    `networks` is the text of conflists by file name, `plugin_dirs` where it looks for plugins, in order.
    """

    def __init__(
        self, host: Host, folder: Path, networks: Mapping[str, str], plugin_dirs: Sequence[Path]
    ) -> None:
        self.host = host
        self.confdir = folder / "net.d"
        self._rootfs = folder / "rootfs"
        self.env = {
            **BARE_ENV,
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        _write(self.confdir, networks)
        dirs = json.dumps([str(each) for each in plugin_dirs])
        config = _CONTAINERS_CONF.format(confdir=self.confdir, plugin_dirs=dirs)
        _write(folder, {"containers.conf": config, "storage.conf": _STORAGE_CONF.format(folder=folder)})
        _write(self._rootfs, {"index.html": PAGE})
        (self._rootfs / "bin").mkdir()
        shutil.copy(BUSYBOX, self._rootfs / "bin")
        # Its locks are shared memory; and crun takes either version of control groups, but no mixture.
        host.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/shm"])  # noqa: S108 - hidden, not written to
        if not Path("/sys/fs/cgroup/cgroup.controllers").exists():
            host.run(["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"])

    def close(self) -> None:
        """End and remove all containers."""
        # The test has reported what is wrong with a container. The others must be removed too.
        with suppress(CommandError):
            self.podman("rm", "-f", "-t", "0", "--all")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def podman(self, *arguments: str) -> str:
        """Run podman and return its stdout. Raise CommandError if it fails."""
        return self.host.run(["podman", *arguments], env=self.env)

    def web(self, name: str, *options: str) -> dict[str, Any]:
        """Start a container that serves PAGE on port 80, and return the output of `inspect`.

        `options` are those of `podman run`: "--network", "podman", "-p", "8080:80".
        """
        self.podman("run", "-d", "--name", name, *options, "--rootfs", str(self._rootfs), *SERVE)
        return self.inspect(name)

    def run(self, *options: str, command: Sequence[str]) -> str:
        """Run a program of busybox in a temporary container, and return its stdout."""
        rootfs = ["--rootfs", str(self._rootfs)]
        return self.podman("run", "--rm", *options, *rootfs, "/bin/busybox", *command)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the output of `inspect` for a container."""
        found: dict[str, Any] = json.loads(self.podman("container", "inspect", name))[0]
        return found

    def fetch(self, name: str, address: str, port: int = 80) -> str:
        """Ask an address for its page from inside a container; CommandError when none answers."""
        url = f"http://[{address}]:{port}/" if ":" in address else f"http://{address}:{port}/"
        return self.podman("exec", name, "/bin/busybox", "timeout", "5", "/bin/busybox", "wget", "-qO-", url)

    def execute(self, name: str, *command: str) -> str:
        """Run a program of busybox in a running container, and return its stdout."""
        return self.podman("exec", name, "/bin/busybox", *command)

    def remove(self, name: str) -> None:
        """Remove a container, running or not."""
        self.podman("rm", "-f", "-t", "0", name)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
