"""The host on which plugins are tried, with all other files read-only, and calls in this process.

All is for a child process that has entered the host (`Host.call`).
"""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni import multicall, skel
from cni.firewall import nft
from cni.kernel import background
from cni.testing import Answer
from cni.testing.namespaces import entered
from plugin_table import declared, packages

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FOLDER = Path("/run/fuzz")
BIN = FOLDER / "bin"
NETNS = "/run/netns/fuzz"
# A bridge that is there before; what one case does to it the next one finds.
OLD_BRIDGE = "br2"
# Files that resolvConf may name.
RESOLV_CONF, FIFO = FOLDER / "resolv.conf", FOLDER / "fifo"
TABLE = packages(declared())

# What a plugin's example may need: a link with a default route.
_LINKS = f"""
link add {OLD_BRIDGE} type bridge
link add eth0 type veth peer name eth1
link set eth0 up
addr add 192.0.2.1/24 dev eth0
route add default via 192.0.2.2
"""
_STATE = (Path("/run/pycni"), Path("/var/lib/cni"), FOLDER)
_OWN = re.compile(
    r"[0-9a-f]{16}-[0-9a-f]{16}, net|CNI-(?:DN-|SN-)?[0-9a-f]{21,24}|"
    r"cni-br-iface-[^\s{]+|macspoofchk-[^\s\"]+"
)
# What the programs of iptables make and leave; a mark that the shared chains did not know stays in them.
_PASSING = re.compile(
    r"(table .*|chain [A-Z]+ \{|\}|type .*|counter meta mark set .*|meta mark .* counter .*|)$"
)


class Footprint(NamedTuple):
    """Objects that calls leave: `own` of attachments, `shared` all of rules and links on the host."""

    own: frozenset[str]
    shared: frozenset[str]


def prepare() -> None:
    """Make folders, namespace and files; whatever input says, nothing of the machine can be written."""
    _run("mount", "-o", "remount,bind,ro", "/", check=False)
    BIN.mkdir(parents=True)
    program = FOLDER / "program"
    program.write_text("#!/bin/false\n")
    program.chmod(0o755)
    for name in TABLE:
        (BIN / name).symlink_to(program)
    RESOLV_CONF.write_text("nameserver 192.0.2.53\nsearch a.example b.example\noptions ndots:2\n")
    os.mkfifo(FIFO)
    _run("ip", "netns", "add", "fuzz")
    _run("ip", "-batch", "-", stdin=_LINKS)
    (FOLDER / "cwd").mkdir()


def _run(*argv: str, check: bool = True, stdin: str = "") -> str:
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=check).stdout


def enter() -> None:
    """Change to a folder in which relative paths harm nothing."""
    os.chdir(FOLDER / "cwd")


def environment(verb: str, **changes: str) -> dict[str, str]:
    """Return the variables of a call of container c1's eth0."""
    return {
        "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": NETNS, "CNI_IFNAME": "eth0",
        "CNI_PATH": str(BIN), "PATH": os.environ.get("PATH", ""), "PYCNI_DEL": "gone",
    } | changes  # fmt: skip


def call(name: str, env: Mapping[str, str], stdin: bytes | Mapping[str, Any]) -> Answer:
    """Call a plugin in this process; plugins that it asks run in it as well."""
    text = stdin if isinstance(stdin, bytes) else json.dumps(stdin).encode()
    stdout, stderr = io.BytesIO(), io.StringIO()
    with redirect_stderr(stderr):
        status = skel.run(
            partial(multicall.load, name, TABLE),
            env,
            io.BytesIO(text),
            stdout,
            partial(multicall.run_delegate, str(BIN / name), TABLE),
        )
    assert background.wait(30)
    return Answer(status, stdout.getvalue().decode(), stderr.getvalue())


@contextmanager
def restored() -> Iterator[Footprint]:
    """Yield the state of the host, and remove all new links in the end: bridges stay after DEL."""
    before = footprint()
    try:
        yield before
    except BaseException:
        # Else every case after this one would fail as well.
        _run("nft", "flush", "ruleset")
        _run("ip", "netns", "exec", "fuzz", "ip", "link", "del", "eth0", check=False)
        for path in (path for folder in _STATE[:2] for path in folder.rglob("*") if _is_state(path)):
            path.unlink(missing_ok=True)
        raise
    finally:
        for name in set(_links()) - {each.removeprefix("host: ") for each in before.shared}:
            _run("ip", "link", "del", name, check=False)


def footprint() -> Footprint:
    """Return the state of the host, read without the code under test."""
    with entered(NETNS):
        inside = [f"container: {name}" for name in _links()]
    rules = _rules()
    own = {match for line in rules for match in _OWN.findall(line)}
    host = {f"host: {name}" for name in _links()}
    return Footprint(frozenset({*inside, *_files(), *own}), frozenset({*rules, *host}))


def _links() -> list[str]:
    lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return [line.partition(":")[0].strip() for line in lines]


_known: tuple[int, list[str]] = (-1, [])


def _rules() -> list[str]:
    global _known  # noqa: PLW0603 - of one process
    number = nft.generation()
    if number != _known[0]:
        lines = (line.strip() for line in _run("nft", "-s", "list", "ruleset").splitlines())
        _known = number, [line for line in lines if not _PASSING.match(line)]
    return _known[1]


def _files() -> list[str]:
    return [
        f"{path} {path.read_bytes()!r}" for folder in _STATE for path in folder.rglob("*") if _is_state(path)
    ]


def _is_state(path: Path) -> bool:
    """Return whether a file is one that attachments have; locks, notes, the boot's ID, and servers stay."""
    is_passing = (
        path.name in {"lock", "boot"} or path.suffix == ".lock" or path.name.startswith("last_reserved_ip.")
    )
    return path.is_file() and not is_passing and not {"warm", "helpers"} & set(path.parts)
