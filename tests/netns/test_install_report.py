"""An installation reports plugins that networks lack, and runtimes that look elsewhere first."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.netns.bundled_host import empty_opt
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

__all__ = ["empty_opt"]

PODMAN_DEFAULT = "/usr/local/libexec/cni, /usr/libexec/cni, /usr/local/lib/cni, /usr/lib/cni"


@pytest.fixture
def bare(empty_opt: Host) -> Host:
    """Return a host without runtimes and networks, whatever the machine has."""
    host = empty_opt
    host.run(["sh", "-c", _BARE])
    return host


# What is written to /etc and /var is the host's own: links there lead to what the machine has, except that of
# runtimes. The programs' names are covered as well: by folders that have none of them.
_BARE = """
set -e
cover() {
    mkdir -p "/run/machine/$2"
    mount --rbind "$1" "/run/machine/$2"
    mount -t tmpfs -o mode=755 tmpfs "$1"
    ln -s "/run/machine/$2"/* "$1/"
}
cover /etc etc
cover /var/lib lib
cover /var var
rm -f /etc/containerd /etc/containers /etc/crio /var/lib/rancher /var/snap /var/*-networks
mkdir /run/empty
for folder in /usr/local/bin /usr/local/sbin /usr/lib/cni /usr/share/containers; do
    [ ! -d "$folder" ] || mount --bind /run/empty "$folder"
done
for program in podman containerd crio; do
    for folder in /usr/bin /usr/sbin; do
        [ ! -e "$folder/$program" ] || { hidden=1; break; }
    done
done
if [ -n "${hidden-}" ]; then
    mkdir -p /run/usr/bin /run/usr/sbin /run/new/bin /run/new/sbin
    mount --bind /usr/bin /run/usr/bin
    mount --bind /usr/sbin /run/usr/sbin
    # One program makes all links: there are thousands.
    for folder in bin sbin; do
        ln -s /run/usr/$folder/* /run/new/$folder/
        (cd /run/new/$folder; rm -f podman containerd crio)
    done
    mount --bind /run/new/bin /usr/bin
    mount --bind /run/new/sbin /usr/sbin
fi
mount -t tmpfs tmpfs /usr/local
mkdir /usr/local/bin
"""


def _write(host: Host, path: str, text: str) -> None:
    host.run(["install", "-D", "-m", "644", "/dev/stdin", path], text)


def _program(host: Host, name: str) -> None:
    path = f"/usr/local/bin/{name}"
    host.run(["sh", "-c", f"printf '#!/bin/sh\\n' > {path}; chmod 755 {path}"])


def _warnings(host: Host, bundle: Path, *options: str) -> list[str]:
    told = host.run([str(bundle / "pycni"), "--install", "--no-self-test", *options])
    return [line.removeprefix("warning: ") for line in told.splitlines() if line.startswith("warning: ")]


def _network(host: Host, path: str, name: str, *plugins: object) -> None:
    text = json.dumps({"cniVersion": "0.4.0", "name": name, "plugins": plugins})
    _write(host, path, text)


BRIDGE = {"type": scene.INTERFACE, "ipam": {"type": scene.IPAM}}


def test_nothing_to_warn_of(bare: Host, bundle: Path) -> None:
    _network(bare, "/etc/cni/net.d/10.conflist", "net", BRIDGE, {"type": scene.PORTS})
    assert _warnings(bare, bundle) == []


def test_a_network_that_lacks_plugins_is_named_with_them(bare: Host, bundle: Path) -> None:
    host = bare
    _network(host, "/etc/cni/net.d/87.conflist", "podman", BRIDGE, {"type": "vendor1"}, {"type": "vendor2"})
    _write(
        host,
        "/etc/cni/net.d/90.conf",
        '{"cniVersion": "0.3.1", "name": "one", "type": "vendor3", "IPAM": {"Type": "vendor4"}}',
    )
    _network(
        host, "/etc/cni/net.d/95.conflist", "flannel", {"type": "flannel", "delegate": {"type": "vendor5"}}
    )
    _write(host, "/etc/cni/net.d/99.conflist", "{")
    lines = _warnings(host, bundle)
    assert lines[:1] == [
        "network podman also needs vendor1, vendor2: not in /opt/cni/bin; /etc/cni/net.d/87.conflist"
    ]
    assert any("99.conflist" in line for line in lines)
    assert "network one also needs vendor3, vendor4: not in /opt/cni/bin; /etc/cni/net.d/90.conf" in lines
    assert (
        "network flannel also needs flannel, vendor5: not in /opt/cni/bin; /etc/cni/net.d/95.conflist"
        in lines
    )
    # Installed there, they are no longer missing.
    host.run(["touch", "/opt/cni/bin/vendor1", "/opt/cni/bin/vendor2"])
    assert not any("podman" in line for line in _warnings(host, bundle))


FOLDERS = (
    "/etc/cni/net.d",
    "/etc/cni/multus/net.d",
    "/var/lib/rancher/k3s/agent/etc/cni/net.d",
    "/var/lib/rancher/rke2/agent/etc/cni/net.d",
    "/var/snap/microk8s/current/args/cni-network",
    "/var/crio-networks",
    "/var/containerd-networks",
    "/var/podman-networks",
)
ELSEWHERE = "/etc/cni/elsewhere"


def test_the_folders_of_all_runtimes_are_read(bare: Host, bundle: Path) -> None:
    host = bare
    _write(host, "/etc/crio/crio.conf", '[crio.network]\nnetwork_dir = "/var/crio-networks/"')
    conf = 'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nconf_dir = "/var/containerd-networks"'
    _write(host, "/etc/containerd/config.toml", conf)
    _program(host, "podman")
    _write(host, "/etc/containers/containers.conf", '[network]\nnetwork_config_dir = "/var/podman-networks"')
    for number, folder in enumerate((*FOLDERS, ELSEWHERE)):
        _network(host, f"{folder}/10.conflist", f"net{number}", {"type": "theirs"})
    usual = _warnings(host, bundle)
    for number, folder in enumerate(FOLDERS):
        [line] = [line for line in usual if line.startswith(f"network net{number} ")]
        assert f"{folder}/10.conflist" in line
    found = _warnings(host, bundle, f"--confdir={ELSEWHERE}")
    [line] = [line for line in found if line.startswith(f"network net{len(FOLDERS)} ")]
    assert f"{ELSEWHERE}/10.conflist" in line


LOOKING = [
    (
        "/etc/containerd/config.toml",
        'version = 2\n[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/usr/lib/cni"',
        ("containerd does not look in /opt/cni/bin, only in /usr/lib/cni (/etc/containerd/config.toml): "
        "install with BINDIR=/usr/lib/cni, or change that"),
    ),
    (
        "/etc/containerd/config.toml",
        '[plugins.cri.cni]\nbin_dir = "/usr/lib/cni"',
        ("containerd does not look in /opt/cni/bin, only in /usr/lib/cni (/etc/containerd/config.toml): "
        "install with BINDIR=/usr/lib/cni, or change that"),
    ),
    (
        "/etc/containerd/config.toml",
        'version = 3\n[plugins."io.containerd.cri.v1.runtime".cni]\nbin_dirs = ["/a", "/opt/cni/bin"]',
        ("containerd looks in /a before /opt/cni/bin, where none of these plugins is now "
        "(/etc/containerd/config.toml): install with BINDIR=/a, or put /opt/cni/bin first there"),
    ),
    (
        "/var/lib/rancher/k3s/agent/etc/containerd/config.toml",
        '[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "/var/lib/rancher/k3s/data/cni"',
        ("k3s does not look in /opt/cni/bin, only in /var/lib/rancher/k3s/data/cni "
        "(/var/lib/rancher/k3s/agent/etc/containerd/config.toml): "
        "install with BINDIR=/var/lib/rancher/k3s/data/cni, or change that"),
    ),
    (
        "/var/snap/microk8s/current/args/containerd.toml",
        '[plugins."io.containerd.grpc.v1.cri".cni]\nbin_dir = "${SNAP_DATA}/opt/cni/bin"',
        ("microk8s does not look in /opt/cni/bin, only in /var/snap/microk8s/current/opt/cni/bin "
        "(/var/snap/microk8s/current/args/containerd.toml): "
        "install with BINDIR=/var/snap/microk8s/current/opt/cni/bin, or change that"),
    ),
    (
        "/etc/crio/crio.conf",
        '[crio.network]\nplugin_dirs = ["/usr/libexec/cni", "/opt/cni/bin/"]',
        ("CRI-O looks in /usr/libexec/cni before /opt/cni/bin, where none of these plugins is now "
        "(plugin_dirs in /etc/crio): install with BINDIR=/usr/libexec/cni, "
        "or put /opt/cni/bin first there"),
    ),
    ("/etc/crio/crio.conf", "[crio.network]\n", None),
    ("/etc/containerd/config.toml", "version = 2\n", None),
    ("/etc/containerd/config.toml", "not = [toml", None),
    ("/etc/containerd/config.toml", 'plugins = "x"', None),
]  # fmt: skip


def test_a_runtime_that_looks_elsewhere_is_named(bare: Host, bundle: Path) -> None:
    for file, text, expected in LOOKING:
        _write(bare, file, text)
        assert _warnings(bare, bundle) == ([expected] if expected else []), (file, text)
        bare.run(["rm", file])


def test_what_podman_would_take_is_named(bare: Host, bundle: Path) -> None:
    host = bare
    _program(host, "podman")
    [line] = _warnings(host, bundle)
    assert line.startswith(f"podman looks in {PODMAN_DEFAULT} before /opt/cni/bin, where none of ")
    host.run(["sh", "-c", f"mkdir -p /usr/local/lib/cni; touch /usr/local/lib/cni/{scene.INTERFACE}"])
    [line] = _warnings(host, bundle)
    assert f"before /opt/cni/bin, and takes /usr/local/lib/cni/{scene.INTERFACE} (its default): " in line
    text = '[network]\ncni_plugin_dirs = ["/opt/cni/bin", "/usr/local/lib/cni"]'
    _write(host, "/etc/containers/containers.conf", text)
    assert _warnings(host, bundle) == []
    # A plugin that the network needs, and that is in a later folder, is found by podman.
    _network(host, "/etc/cni/net.d/87.conflist", "podman", BRIDGE, {"type": "theirs"})
    host.run(["touch", "/usr/local/lib/cni/theirs"])
    [line] = _warnings(host, bundle)
    assert line == (
        "network podman also needs theirs: not in /opt/cni/bin "
        "(theirs is in /usr/local/lib/cni); /etc/cni/net.d/87.conflist"
    )
    _write(host, "/etc/containers/containers.conf.d/10.conf", '[network]\nnetwork_backend = "netavark"')
    assert not any(line.startswith("podman") for line in _warnings(host, bundle))


def test_another_root_is_not_described(bare: Host, bundle: Path) -> None:
    _network(bare, "/etc/cni/net.d/10.conflist", "net", {"type": "theirs"})
    assert _warnings(bare, bundle, "--destdir=/opt/root") == []
