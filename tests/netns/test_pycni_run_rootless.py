"""`pycni run` without root's rights on the host: in a user namespace. The executable itself is started."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import pytest

from cni.testing import make_bindir, make_command, why_no_namespaces
from plugin_table import declared, packages
from tests.netns.attached_world import RANGES
from tests.support import scene

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.modes("cold"),
    pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "there are namespaces"),
]

SCRIPT = r"""
set -e
mount -t tmpfs none /run
mount -t tmpfs none /var/lib
mkdir /run/conf
ip link set lo up
printf '%s' "$CONF" > /run/conf/web.conflist
echo input | "$PYCNI" run --network web --name box --hostname me -- sh -c '
    cat; hostname; echo /sys/class/net/*/; set -- /proc/[0-9]*; echo $#; exit 9' || echo "code $?"
mkfifo /run/ready
"$PYCNI" run --network web --name box -- sh -c 'echo ready > /run/ready; exec sleep 1000' &
cat /run/ready
kill -KILL $!
wait $! || true
"$PYCNI" gc web --dead-only
echo remains: $(ls /run/netns /run/pycni/runs /var/lib/cni/results)
"""
# COMMAND and the process that waits for it.
PROCESSES = 2


def test_a_user_namespace_suffices(tmp_path: Path) -> None:
    ipam = {"type": scene.IPAM, "ranges": RANGES}
    interface = {"type": scene.INTERFACE, "bridge": "web0", "isDefaultGateway": True, "ipam": ipam}
    env = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "PYCNI": str(make_command(tmp_path, make_bindir(tmp_path, packages(declared())))),
        "NETCONFPATH": "/run/conf",
        "CONF": json.dumps({"cniVersion": "1.1.0", "name": "web", "plugins": [interface]}),
    }
    # All that the script has started ends with the process ID namespace.
    command = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run(
        [*command, "--kill-child", "sh", "-c", SCRIPT], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    links = "/sys/class/net/eth0/ /sys/class/net/lo/"
    seen = ["input", "me", links, str(PROCESSES), "code 9", "ready"]
    remains = "remains: /run/netns: /run/pycni/runs: /var/lib/cni/results:"
    assert done.stdout.splitlines() == [*seen, remains]
    # The shell reports the job that it has killed.
    assert "pycni" not in done.stderr
