"""Debian's containerd on a test's host: pods by its CRI socket, attached by the host's plugins.

No registry is asked: the only image is made here, of a static busybox that serves the file /index.html.
Needs the packages containerd, runc and busybox-static, and root.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.support import grpc

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.testing.host import Host

IMAGE = "localhost/web:1"
PAGE = "answered from inside the container"
BUSYBOX = Path("/bin/busybox")
SERVE = [str(BUSYBOX), "httpd", "-f", "-p", "[::]:80", "-h", "/"]
_CGROUPS = Path("/sys/fs/cgroup")
_SERVICE = "/runtime.v1.RuntimeService"
# The folder in which containerd's shims let runc keep the containers of pods.
_RUNC_ROOT = "/run/containerd/runc/k8s.io"
# containerd's plugin opt makes folders in /opt of the machine.
_CONFIG = """
version = 2
disabled_plugins = ["io.containerd.internal.v1.opt"]
root = "{folder}/root"
state = "/run/containerd"
[grpc]
address = "/run/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
disable_apparmor = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{bindir}"
conf_dir = "{confdir}"
"""


class Published(NamedTuple):
    """A host port that leads to a port of a pod; protocol tcp."""

    host_port: int
    container_port: int
    host_ip: str = ""


def why_no_containerd() -> str:
    """Return why pods cannot run here; "" if they can."""
    missing = [name for name in ("containerd", "ctr", "runc", "busybox") if not shutil.which(name)]
    if missing:
        return f"not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "containerd needs root"


class Containerd:
    """A containerd that ends with the context; `conflist` is its network, `folder` an empty folder for it."""

    def __init__(self, host: Host, folder: Path, conflist: Mapping[str, Any]) -> None:
        self.host = host
        self._folder = folder
        self._log = folder / "log"
        self._pods: list[str] = []
        # Control groups of pods are those of the machine: they are not private to the host.
        self.cgroup = f"/cni-testing-{os.getpid()}-{host.pid}"
        confdir = folder / "net.d"
        confdir.mkdir()
        (confdir / "10-test.conflist").write_text(json.dumps(dict(conflist)))
        config = folder / "config.toml"
        config.write_text(_CONFIG.format(folder=folder, image=IMAGE, bindir=host.bindir, confdir=confdir))
        # A second containerd goes on in the log of the first.
        command = f"exec containerd --config {config} >>{self._log} 2>&1"
        self._command = ["sh", "-c", command]
        self._process = host.place.popen(self._command)
        try:
            self._wait_until_ready()
            write_image(folder / "image.tar")
            self.ctr("images", "import", str(folder / "image.tar"))
        except BaseException:
            self.close()
            raise

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 120
        while self.host.place.run(self._ctr("version"), check=False).returncode:
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise RuntimeError(f"containerd did not start:\n{self.log}")
            time.sleep(0.1)

    @property
    def log(self) -> str:
        """The log of containerd, which has the plugins' stderr."""
        return self._log.read_text()

    def restart(self) -> None:
        """Kill containerd as a crash does, and start it again. The containers run on."""
        self._process.kill()
        self._process.communicate()
        self._process = self.host.place.popen(self._command)
        self._wait_until_ready()

    def close(self) -> None:
        """End containerd and everything that it has started."""
        for pod in list(self._pods):
            # The test has reported what is wrong with this pod. The others must be removed too.
            with contextlib.suppress(RuntimeError, OSError):
                self.remove_pod(pod)
        self._process.terminate()
        try:
            self._process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        for folder in (_CGROUPS, *_CGROUPS.iterdir()):
            with contextlib.suppress(OSError):
                (folder / self.cgroup[1:]).rmdir()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ctr(self, *arguments: str) -> str:
        """Run containerd's own command."""
        return self.host.run(self._ctr(*arguments))

    @staticmethod
    def _ctr(*arguments: str) -> list[str]:
        return ["ctr", "--address", "/run/containerd.sock", "--namespace", "k8s.io", *arguments]

    def run_pod(
        self, name: str, ports: Iterable[Published] = (), servers: Iterable[str] = (), search: str = ""
    ) -> str:
        """Run a pod whose container serves PAGE on port 80, and return its ID.

        `servers` and `search` are in its resolv.conf, as the kubelet passes them.
        """
        mappings = [
            grpc.encode({2: port.container_port, 3: port.host_port, 4: port.host_ip}) for port in ports
        ]
        metadata = grpc.encode({1: name, 2: f"uid-{name}", 3: "default"})
        dns = grpc.encode({1: list(servers), 2: [search] if search else []})
        config = grpc.encode({1: metadata, 3: "/run", 4: dns, 5: mappings, 8: grpc.encode({1: self.cgroup})})
        answer = self._call("RunPodSandbox", grpc.encode({1: config}))
        [pod] = [value for number, value in grpc.decode(answer) if number == 1]
        assert isinstance(pod, bytes)
        self._pods.append(pod.decode())
        return pod.decode()

    def execute(self, pod: str, *command: str) -> str:
        """Run a program in a pod's container, and return its stdout. Raise CommandError.

        `ctr tasks exec` is no way to do this. It reads a FIFO, and prints nothing and succeeds if the program
        has ended before one of its threads is back from open(2), which happens on a busy machine.
        """
        return self.host.run(["runc", "--root", _RUNC_ROOT, "exec", pod, *command])

    def remove_pod(self, pod: str) -> None:
        """Stop a pod and remove it."""
        self._call("StopPodSandbox", grpc.encode({1: pod}))
        self._call("RemovePodSandbox", grpc.encode({1: pod}))
        self._pods.remove(pod)

    def _call(self, method: str, request: bytes) -> bytes:
        try:
            return self.host.call(grpc.call, "/run/containerd.sock", f"{_SERVICE}/{method}", request)
        except grpc.CallError as error:
            raise RuntimeError(f"{method} failed:\n{self.log[-4000:]}") from error


def write_image(path: Path) -> None:
    """Write an OCI image layout (OCI image specification 1.0) with one layer and one platform."""
    layer = _tar({"bin/busybox": BUSYBOX.read_bytes(), "index.html": PAGE.encode()}, mode=0o755)
    config = {
        "architecture": _architecture(),
        "os": "linux",
        "config": {"Entrypoint": SERVE},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    blobs = {"config": json.dumps(config).encode(), "layer": layer}
    manifest = {
        "schemaVersion": 2,
        "config": _descriptor("image.config.v1+json", blobs["config"]),
        "layers": [_descriptor("image.layer.v1.tar", layer)],
    }
    blobs["manifest"] = json.dumps(manifest).encode()
    named = {"annotations": {"io.containerd.image.name": IMAGE, "org.opencontainers.image.ref.name": "1"}}
    index = {
        "schemaVersion": 2,
        "manifests": [_descriptor("image.manifest.v1+json", blobs["manifest"]) | named],
    }
    files = {f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in blobs.values()}
    files |= {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": json.dumps(index).encode()}
    path.write_bytes(_tar(files))


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": f"application/vnd.oci.{kind}", "digest": _digest(blob), "size": len(blob)}


def _digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _tar(files: Mapping[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
