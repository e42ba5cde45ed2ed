"""The file that lists the allowed sysctls: what matches, and what keeps anything from being allowed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cni.testing import Answer, Host

FILE = "/etc/cni/tuning/allowlist.conf"
KEY, SLASHES = "net.core.somaxconn", "net/core/somaxconn"
# The lines of the file, keys that match one, and keys that do not.
LISTS: list[tuple[str, list[str], list[str]]] = [
    ("^net\\.core\\.somaxconn$", [KEY], [SLASHES, "net.core.somaxconn2", "net.ipv4.ip_forward"]),
    ("\n  somaxconn  \n\n^net/ipv4/", [KEY, SLASHES, "net/ipv4/ip_forward"], ["net.ipv4.ip_forward"]),
    (
        "^net\\.ipv4\\.conf\\.IFNAME\\.[a-z_]*$",
        ["net.ipv4.conf.IFNAME.arp_filter"],
        ["net.ipv4.conf.lo.arp_filter"],
    ),
    ("^net[./][[:alpha:]]+[./]somax[[:alpha:]]+\\z", [KEY, SLASHES], ["net.ipv4.ip_forward"]),
    ("", [], [KEY]),
]
UNREADABLE = {
    "not an expression": ("^(net", f'"^(net" in {FILE} is not a regular expression'),
    "a class of Go's": ("^\\pL+$", f'"^\\pL+$" in {FILE} is not a regular expression'),
    "no text": (b"\xff\xfe", f"could not read the allowed sysctls from {FILE}"),
}


class Place:
    """A host with a file, and a container."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.sandbox = host.sandbox("c1")
        host.run(["mkdir", "-p", "/etc/cni/tuning"])

    def write(self, content: str | bytes) -> None:
        self.host.call(write, content if isinstance(content, bytes) else content.encode())

    def add(self, key: str, verb: str = "ADD") -> Answer:
        conf = {"cniVersion": "1.0.0", "name": "net1", "type": "tuning", "sysctl": {key: "1"}}
        conf["prevResult"] = {
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "eth0", "sandbox": self.sandbox.path}],
        }
        return self.host.plugin("tuning", verb, conf, netns=self.sandbox)


def write(content: bytes) -> None:
    from pathlib import Path

    Path(FILE).write_bytes(content)


@pytest.fixture
def place(host: Host) -> Place:
    return Place(host)


def test_a_key_must_match_a_line_as_it_is_written(place: Place) -> None:
    for content, allowed, refused in LISTS:
        place.write(content)
        for key in allowed:
            # No link eth0 is there: an interface's sysctl is allowed and not found.
            told = place.add(key)
            assert told.ok or "no such file" in told.msg, (content, key, told)
        for key in refused:
            answer = place.add(key)
            listed = " ".join(line.strip() for line in content.splitlines() if line.strip())
            text = f"Sysctl {key} is not allowed. Only the following sysctls are allowed: [{listed}]"
            assert (answer.code, answer.msg) == (7, text)


@pytest.mark.parametrize(("content", "message"), UNREADABLE.values(), ids=UNREADABLE)
def test_a_list_that_cannot_be_read_allows_nothing(place: Place, content: str | bytes, message: str) -> None:
    place.write(content)
    answer = place.add(KEY)
    assert answer.code == 7
    assert answer.msg.startswith(message)


def test_a_link_to_a_list_is_followed_and_one_to_nothing_is_an_error(place: Place) -> None:
    place.host.run(["sh", "-c", f"echo {KEY} > /etc/cni/list && ln -s /etc/cni/list {FILE}"])
    place.add(KEY).must()
    assert "is not allowed" in place.add("net.ipv4.ip_forward").msg
    place.host.run(["rm", "/etc/cni/list"])
    assert place.add(KEY).msg.endswith(f"{FILE}: it is a link to nothing")


def test_del_needs_no_list(place: Place) -> None:
    place.add(KEY).must()
    place.write("^(net")
    place.add(KEY, "DEL").must()
    assert place.sandbox.run(["cat", f"/proc/sys/{SLASHES}"]).strip() != "1"
