"""Many calls at once: from two sets of namespaces with one /run, and while servers get SIGTERM."""

from __future__ import annotations

import ast
import json
import time
from typing import TYPE_CHECKING

from cni.testing.place import BARE_ENV
from cni.warm import control

if TYPE_CHECKING:
    import subprocess

    from tests.warm.conftest import WarmHost

CALLS, LIMIT_S = 30, 300
CONF = '{"cniVersion": "1.0.0", "name": "n", "type": "odd"}'
ENV = BARE_ENV | {
    "CNI_COMMAND": "ADD", "CNI_CONTAINERID": "c", "CNI_NETNS": "/n", "CNI_IFNAME": "e", "CNI_PATH": "/o",
}  # fmt: skip
# The first line of stderr tells where the caller is, each other one where a worker is.
CALL_OFTEN = """
readlink /proc/self/ns/net /proc/self/ns/mnt | paste -sd ' ' >&2
for i in $(seq {count}); do
    echo '{conf}' | {program} {to} || exit
done
"""


def start_calls(host: WarmHost, *wrapper: str, count: int = CALLS, to: str = "") -> subprocess.Popen[str]:
    script = CALL_OFTEN.format(count=count, conf=CONF, program=host.bindir / "odd", to=to)
    return host.place.popen([*wrapper, "sh", "-c", script], env=ENV)


def test_two_runtimes_at_once_each_have_their_own_server(warm_host: WarmHost) -> None:
    """In other network and mount namespaces, but with the same folder of sockets."""
    # To files: what does not fit into a pipe would make one wait until the other has been heard.
    wrappers: dict[str, list[str]] = {"/run/first": [], "/run/second": ["unshare", "--net", "--mount"]}
    runtimes = [start_calls(warm_host, *how, to=f"2>>{file}") for file, how in wrappers.items()]
    seen, servers = set(), set()
    for runtime, file in zip(runtimes, wrappers, strict=True):
        out, where = runtime.communicate(timeout=LIMIT_S)
        assert (runtime.returncode, out.count("cniVersion")) == (0, CALLS), where
        calls = warm_host.run(["cat", file]).splitlines()
        facts = [json.loads(line) for line in calls]
        namespaces = [ast.literal_eval(each["namespaces"]) for each in facts]
        assert {f"{each['net']} {each['mnt']}" for each in namespaces} == {where.strip()}
        parents = {each["parent"] for each in facts}
        assert len(parents) == 1
        seen.add(where)
        servers |= parents
    assert len(seen) == len(servers) == 2
    assert {str(pid) for pid in warm_host.servers()} == servers
    assert [warm_host.status_of(pid)["requests"] for pid in warm_host.servers()] == [CALLS, CALLS]


def test_servers_that_get_sigterm_lose_no_call(warm_host: WarmHost) -> None:
    # Nobody reads their output meanwhile, which does not fit into a pipe.
    callers = [start_calls(warm_host, count=40, to="2>/dev/null") for _ in range(4)]
    ended: set[int] = set()
    deadline = time.monotonic() + LIMIT_S
    while any(caller.poll() is None for caller in callers):
        assert time.monotonic() < deadline
        ended |= {server.pid for server in warm_host.call(control.stop_all)}
        time.sleep(0.1)
    for caller in callers:
        out, err = caller.communicate(timeout=LIMIT_S)
        assert (caller.returncode, out.count("cniVersion")) == (0, 40), err
    assert len(ended) >= 3
    # What was not accepted by a worker was made by a process of its own, the rest by workers.
    assert "the last call changed" not in warm_host.log()
