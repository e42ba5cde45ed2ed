"""Each installed plugin is a file of its own, which finds its bundle from wherever its folder is."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cni.state import same_program
from tests.netns.bundled_host import BINDIR, BRIDGE, PREFIX, add_check_del, empty_opt, install
from tests.support import scene

if TYPE_CHECKING:
    from cni.testing import Host, Sandbox

__all__ = ["empty_opt"]

# A foreign IPAM plugin, which leaves a trace; padded to the size of ours.
_FOREIGN = """#!/bin/sh
cat > /dev/null
echo "$CNI_COMMAND" >> /run/foreign
echo '{"cniVersion": "1.1.0", "ips": [{"address": "10.30.0.77/24", "gateway": "10.30.0.1"}]}'
exit 0
"""
MODES = [{"PYCNI_WARM": "off"}, {}]
# Several workers serve warm calls, and remember. A cold call is the first of its process.
TIMES = {"off": 1, "": 6}
IDS = ["cold", "warm"]


def _copy_foreign(target: Path) -> None:
    """Copy a foreign program over a file: as `cp` does, into the same inode, of the same size and time."""
    before = target.stat() if target.exists() else None
    text = _FOREIGN.encode()
    size = before.st_size if before else len(text)
    with target.open("r+b" if before else "wb") as file:
        file.write(text.ljust(size, b"\n"))
        file.truncate(size)
    if before:
        os.utime(target, ns=(before.st_atime_ns, before.st_mtime_ns))
    target.chmod(0o755)


def _foreign_calls(host: Host) -> list[str]:
    return host.run(["sh", "-c", "cat /run/foreign 2>/dev/null || true"]).split()


def _add(host: Host, sandbox: Sandbox, env: dict[str, str]) -> dict[str, Any]:
    result = host.plugin(scene.INTERFACE, "ADD", BRIDGE, netns=sandbox, env=env).must()
    host.plugin(scene.INTERFACE, "DEL", BRIDGE, netns=sandbox, env=env).must()
    assert isinstance(result, dict)
    return result


def test_a_program_copied_over_one_plugin_replaces_no_other(empty_opt: Host, bundle: Path) -> None:
    """containerd's installation script runs `cp -r bin /opt/cni`."""
    host = empty_opt
    install(host, bundle)
    host.run(["cp", "/bin/true", str(BINDIR / scene.PORTS)])
    assert (
        host.run(["stat", "-c", "%h", *(str(BINDIR / name) for name in (scene.INTERFACE, scene.IPAM))])
        == "1\n1\n"
    )
    for warm in ("off", "on"):
        add_check_del(host, host.sandbox(f"c{warm}"), warm=warm)
    assert host.plugin(scene.PORTS, "VERSION", {}).stdout == ""


@pytest.mark.parametrize("env", MODES, ids=IDS)
def test_a_foreign_plugin_copied_over_ours_is_executed(
    empty_opt: Host, bundle: Path, env: dict[str, str]
) -> None:
    """Also by workers that have compared the file before, and though size and time are as they were."""
    host, sandbox = empty_opt, empty_opt.sandbox("c1")
    install(host, bundle)
    # Files have to be some time old for a comparison to be kept.
    time.sleep(2.5)
    times = TIMES[env.get("PYCNI_WARM", "")]
    for _ in range(times):
        _add(host, sandbox, env)
    assert _foreign_calls(host) == []
    host.call(_copy_foreign, BINDIR / scene.IPAM)
    for _ in range(times):
        assert _add(host, sandbox, env)["ips"][0]["address"] == "10.30.0.77/24"
    assert _foreign_calls(host) == ["ADD", "DEL"] * times


def test_a_foreign_plugin_in_an_earlier_folder_is_executed(empty_opt: Host, bundle: Path) -> None:
    host, sandbox = empty_opt, empty_opt.sandbox("c1")
    install(host, bundle)
    for number, env in enumerate(MODES):
        for _ in range(TIMES[env.get("PYCNI_WARM", "")]):
            _add(host, sandbox, env)
        first = f"/opt/first{number}"
        host.run(["mkdir", first])
        host.call(_copy_foreign, Path(first) / scene.IPAM)
        _add(host, sandbox, env | {"CNI_PATH": f"{first}:{BINDIR}"})
        assert _foreign_calls(host) == ["ADD", "DEL"]
        _add(host, sandbox, env | {"CNI_PATH": f"{BINDIR}:{first}"})
        assert _foreign_calls(host) == ["ADD", "DEL"]
        host.run(["rm", "/run/foreign"])


@pytest.mark.parametrize(
    "how", [["cp", "-r"], ["mount", "--bind"], ["mv"]], ids=["copied", "mounted", "moved"]
)
def test_the_folder_of_plugins_works_wherever_it_is(empty_opt: Host, bundle: Path, how: list[str]) -> None:
    """A kubelet in a container, kind's node image and a hostPath volume see only that folder."""
    host, sandbox = empty_opt, empty_opt.sandbox("c1")
    install(host, bundle)
    other = Path("/opt/else/where")
    host.run(["mkdir", "-p", str(other if "--bind" in how else other.parent)])
    host.run([*how, str(BINDIR), str(other)])
    host.run(["mount", "-t", "tmpfs", "tmpfs", "/opt/cni"])
    host.run(["mkdir", "/opt/links"])
    host.run(["ln", "-s", str(other / scene.INTERFACE), f"/opt/links/{scene.INTERFACE}"])
    for env in MODES:
        for _ in range(TIMES[env.get("PYCNI_WARM", "")]):
            host.plugin(scene.INTERFACE, "ADD", BRIDGE, netns=sandbox, bindir=other, env=env).must()
            host.plugin(scene.INTERFACE, "DEL", BRIDGE, netns=sandbox, bindir=other, env=env).must()
        host.plugin(scene.INTERFACE, "VERSION", {}, bindir=Path("/opt/links"), env=env).must()
    assert "pycni 0" in host.run([str(other / "pycni/bin/pycni"), "version"])
    # It knows its own folder, so that the copy can be removed as the original can.
    assert "bridge: removed" in host.run([str(other / "pycni/bin/pycni"), "--uninstall"])
    assert host.run(["find", str(other), "-type", "f"]) == ""


def test_a_copied_launcher_uses_the_bundle_of_its_installation(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    install(host, bundle)
    host.run(["mkdir", "/opt/other"])
    host.run(["cp", str(BINDIR / scene.LOOPBACK), "/opt/other/"])
    for env in MODES:
        host.plugin(scene.LOOPBACK, "VERSION", {}, bindir=Path("/opt/other"), env=env).must()


def test_a_missing_bundle_is_named_with_the_remedy(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    install(host, bundle)
    build = (bundle / "build").read_text()

    def fail() -> dict[str, Any]:
        answer = host.plugin(scene.INTERFACE, "VERSION", {}, env={"PYCNI_WARM": "off"})
        assert (answer.status, answer.stderr) == (1, "")
        error: dict[str, Any] = json.loads(answer.stdout)
        assert error["code"] == 5
        return error

    for path, shown in (("lib/pycni.pyc", "lib/pycni.pyc"), ("bin/python3", "bin/python3")):
        host.run(["mv", str(PREFIX / build / path), "/opt/aside"])
        error = fail()
        assert (
            error["msg"] == f"the bundle is incomplete: {PREFIX}/{build}/{shown}: No such file or directory"
        )
        assert "make install" in error["details"]
        host.run(["mv", "/opt/aside", str(PREFIX / build / path)])
    host.run(["mount", "--bind", str(PREFIX), str(PREFIX)])
    host.run(["mount", "-o", "remount,bind,noexec", str(PREFIX)])
    error = fail()
    assert error["msg"] == f"plugin bridge: cannot execute {PREFIX}/{build}/pycni: Permission denied"
    assert "noexec" in error["details"]
    host.run(["umount", str(PREFIX)])
    host.run(["mv", str(PREFIX), "/opt/aside"])
    error = fail()
    assert error["msg"] == f"plugin bridge: cannot execute {PREFIX}/{build}/pycni: No such file or directory"
    assert "copy the bundle" in error["details"]


def test_equal_files_are_read_once(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.write_bytes(b"program")
    assert same_program.is_same_program(str(one), str(other))
    # Too young: their times may not show the next change.
    one.write_bytes(b"PROGRAM")
    assert not same_program.is_same_program(str(one), str(other))
    one.write_bytes(b"program")
    time.sleep(2.5)
    assert same_program.is_same_program(str(one), str(other))
    assert _opened_while(str(one), str(other)) == []
    times = one.stat()
    one.write_bytes(b"PROGRAM")
    os.utime(one, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not same_program.is_same_program(str(one), str(other))
    assert not same_program.is_same_program(str(one), str(tmp_path / "none"))


def _opened_while(one: str, other: str) -> list[object]:
    opened: list[object] = []
    is_over = False

    def hook(event: str, args: tuple[object, ...]) -> None:
        if event == "open" and not is_over and args[0] in {one, other}:
            opened.append(args[0])

    sys.addaudithook(hook)
    assert same_program.is_same_program(one, other)
    is_over = True
    return opened
