"""Debian's containerd runs pods that find each other by name: the runtime tells the plugins a pod's name."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest

from cni.testing.place import CommandError
from tests.support.containerd import BUSYBOX, PAGE, Containerd, why_no_containerd
from tests.support.patience import LONG_S, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

pytestmark = [
    pytest.mark.modes("cold", "warm"),
    pytest.mark.interop,
    pytest.mark.skipif(bool(why_no_containerd()), reason=why_no_containerd() or "it is there"),
]
GATEWAY, GATEWAY6, DOMAIN = "10.89.0.1", "fd89::1", "pods.test"
LIST = {
    "cniVersion": "1.0.0",
    "name": "pods",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "pods0",
            "isGateway": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.89.0.0/24"}], [{"subnet": "fd89::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        },
        {"type": "dnsname", "domainName": DOMAIN},
    ],
}


def resolve(containerd: Containerd, pod: str, name: str, server: str = "") -> list[str]:
    """Return the addresses of a name as the pod's resolver finds them; [] if there is no such name.

    A resolver that gets no answer in time, as on a busy machine, is asked again.
    """
    deadline_s = time.monotonic() + LONG_S
    while True:
        try:
            shown = containerd.execute(pod, str(BUSYBOX), "nslookup", name, *([server] if server else []))
        except CommandError as error:
            shown = str(error)
        # It asks for both families. Each name here has an address of either, or does not exist.
        addresses = re.findall(r"^Name:.*\nAddress: (\S+)$", shown, re.MULTILINE)
        if len(addresses) == 2:
            return sorted(addresses)
        if shown.count("NXDOMAIN") == 2:
            return []
        assert time.monotonic() < deadline_s, shown


def read(containerd: Containerd, pod: str, url: str) -> str:
    """Return a page as a pod gets it; "" if it gets none in time."""
    try:
        return containerd.execute(pod, str(BUSYBOX), "wget", "-qO-", url)
    except CommandError:
        return ""


def test_pods_find_each_other(host: Host, tmp_path: Path) -> None:
    with Containerd(host, tmp_path, LIST) as containerd:
        web, asker = (containerd.run_pod(name, servers=[GATEWAY], search=DOMAIN) for name in ("web", "asker"))
        # Pods have the first addresses of the pool, in their order.
        addresses = {web: ["10.89.0.2", "fd89::2"], asker: ["10.89.0.3", "fd89::3"]}
        for name in ("web", "WEB", f"web.{DOMAIN}", "web.default", f"web.default.{DOMAIN}", web[:12]):
            assert resolve(containerd, asker, name) == addresses[web], name
        assert resolve(containerd, asker, "web", GATEWAY6) == addresses[web]
        assert resolve(containerd, web, "asker") == addresses[asker]
        wait_until(lambda: read(containerd, asker, "http://web/") == PAGE)
        # A pod that is replaced has another ID, and its name leads to the new one.
        containerd.remove_pod(web)
        assert resolve(containerd, asker, "web") == []
        new = containerd.run_pod("web", servers=[GATEWAY], search=DOMAIN)
        assert resolve(containerd, asker, "web") == ["10.89.0.4", "fd89::4"]
        assert resolve(containerd, asker, web[:12]) == []
        assert resolve(containerd, asker, new[:12]) == ["10.89.0.4", "fd89::4"]
