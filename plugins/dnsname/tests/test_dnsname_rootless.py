"""Without root's rights on the host: in a user namespace, as rootless podman calls its plugins."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from cni.testing import why_no_namespaces

pytestmark = [
    pytest.mark.modes("warm"),
    pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "there are namespaces"),
]

_SCRIPT = r"""
set -e
mount -t tmpfs none /run
ip link set lo up
ip netns add c1
ip link add br0 type bridge
ip addr add 10.1.0.1/24 dev br0
ip link set br0 up
printf '%s' "$CONF" | "$PYTHON" -m cni_dnsname > /run/added
CNI_COMMAND=CHECK
printf '%s' "$CONF" | "$PYTHON" -m cni_dnsname
ss -Hlntu
CNI_COMMAND=DEL
printf '%s' "$CONF" | "$PYTHON" -m cni_dnsname
find /run/pycni/dns -type f
"""


def test_a_user_namespace_suffices() -> None:
    result = {"cniVersion": "1.0.0", "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]}
    conf = {"cniVersion": "1.0.0", "name": "net1", "type": "dnsname", "prevResult": result}
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYTHON": sys.executable,
        "CONF": json.dumps(conf),
        "CNI_COMMAND": "ADD",
        "CNI_CONTAINERID": "c1",
        "CNI_NETNS": "/run/netns/c1",
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
        "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAME=web",
    }
    # The helper ends with the process ID namespace, whatever fails.
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*command, "--kill-child", "sh", "-c", _SCRIPT], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert sorted((line[0], line[4]) for line in lines) == [("tcp", "10.1.0.1:53"), ("udp", "10.1.0.1:53")]
