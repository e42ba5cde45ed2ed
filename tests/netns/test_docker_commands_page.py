"""Each command in docs/docker-commands.md exists and does what its line says, in the page's order."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.netns.attached_world import World

if TYPE_CHECKING:
    from cni.testing import Host

pytestmark = pytest.mark.modes("warm")

PAGE = (Path(__file__).parents[2] / "docs/docker-commands.md").read_text()
# A part of the output of each command.
PRINTED = {
    "network create my_net": "my_net\n",
    "network create --ipv6 --internal db": "db\n",
    "network ls": "  my_net  bridge",
    "network ls --format json": '"Name": "my_net"',
    "network ls -q --filter label=a": "",
    "network inspect my_net": '"Subnet": "10.89.0.0/24"',
    "add my_net web": '"address": "10.89.0.2/24"',
    "run --rm --network my_net -p 8088:80 --name tool -- ip addr": "inet 10.89.0.3/24",
    "run --network my_net --ip 10.89.0.9 --dns 192.0.2.53 -- cat /etc/resolv.conf": "nameserver 10.89.0.1\n",
    "run --network my_net --network db -e A=b -w /tmp -- env": "A=b\n",
    "run --network my_net --add-host db:192.0.2.7 -- cat /etc/hosts": "192.0.2.7\tdb\n",
    "run --network none --hostname box -- hostname": "box\n",
    "run --network host -- ip link": "lo: ",
    "publish web 8080:80 53:53/udp": "",
    "publish web 8081:81 --allow-from 192.0.2.0/24": "",
    "unpublish web 8081": "",
    "show": "eth0  10.89.0.2/24",
    "network create other": "other\n",
    "network connect --ip 10.89.2.77 other web": "",
    "network disconnect other web": "",
    "del my_net web": "",
    "network rm my_net": "my_net\n",
    "network prune -f": "Deleted Networks:\ndb\nother\n",
}


def test_the_commands_of_the_page_work(host: Host, tmp_path: Path) -> None:
    world = World(host, tmp_path)
    host.sandbox("web")
    exist = PAGE.split("Commands that do not exist")[0]
    commands = re.findall(r"^\|[^|]*\| `pycni ([^`]*)` \|", exist, re.MULTILINE)
    assert commands == list(PRINTED)
    for command in commands:
        printed = world.ok(*shlex.split(command))
        assert PRINTED[command] in printed if PRINTED[command] else printed == ""
