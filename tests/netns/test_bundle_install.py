"""Installed by one command: from the tarball where there is no Python, and by make."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from typing import TYPE_CHECKING

import pytest

from plugin_table import ROOT, declared, packages
from tests.netns.bundled_host import PREFIX, add_check_del, empty_opt

if TYPE_CHECKING:
    from pathlib import Path

    from cni.testing import Host

__all__ = ["empty_opt"]

# Bound over every interpreter, and tmpfs over the folders with libraries and these sources.
_WITHOUT_PYTHON = """
for file in /usr/bin/python3* /usr/local/bin/python3* /usr/lib/*/libpython3*; do
    [ ! -e "$file" ] || mount --bind /dev/null "$file"
done
for folder in "$@" /usr/lib/python3*; do
    [ ! -d "$folder" ] || mount -t tmpfs tmpfs "$folder"
done
"""


@pytest.fixture(scope="module")
def tarball(bundle: Path) -> Path:
    done = subprocess.run([ROOT / "build/make_tarball.sh"], capture_output=True, text=True, check=True)
    return ROOT / done.stdout.strip()


def test_one_command_installs_the_tarball_where_there_is_no_python(
    empty_opt: Host, tarball: Path, tmp_path: Path
) -> None:
    host = empty_opt
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = tmp_path.iterdir()
    host.run(["sh", "-c", _WITHOUT_PYTHON, "sh", str(ROOT), sys.base_prefix, sys.prefix])
    with pytest.raises(AssertionError):
        host.run(["python3", "-c", ""])
    host.run([str(unpacked / "install")], env={"PATH": "/usr/bin:/bin"})
    host.run(["rm", "-r", str(unpacked)])
    sandbox = host.sandbox("c1")
    for warm in ("off", "on"):
        add_check_del(host, sandbox, warm=warm)
    assert "pycni 0" in host.run([str(PREFIX / "bin/pycni"), "version"])
    assert "warm server of" in host.run([str(PREFIX / "bin/pycni"), "--uninstall"])
    assert host.run(["find", "/opt", "-type", "f"]) == ""


def test_make_installs_to_the_usual_places_and_takes_all_away(empty_opt: Host, bundle: Path) -> None:
    host, sandbox = empty_opt, empty_opt.sandbox("c1")
    make = ["make", "--silent", "--directory", str(ROOT)]
    build = (bundle / "build").read_text()
    told = host.run([*make, "install", "SBINDIR=/opt/sbin", "CONF=10-bridge 30-internal"])
    assert f"{PREFIX}/{build}: the suite" in told
    assert host.run(["ls", "/etc/cni/net.d"]).split() == ["10-bridge.conflist", "30-internal.conflist"]
    assert "pycni 0" in host.run(["/opt/sbin/pycni", "version"])
    add_check_del(host, sandbox, warm="on")
    assert f"warm server of {build}: ended" in host.run([*make, "uninstall"])
    assert host.run(["find", "/opt", "-type", "f", "-o", "-type", "l"]) == ""
    assert host.run([*make, "uninstall"]) == f"nothing is installed in {PREFIX}\n"


def test_make_installs_below_destdir_for_packagers(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    make = ["make", "--silent", "--directory", str(ROOT), "DESTDIR=/opt/package", "BINDIR=/usr/lib/cni"]
    host.run([*make, "install", "CONF=10-bridge"])
    shown = host.run(["find", "/opt/package", "-type", "f", "!", "-path", "*/pycni/*-*/*"])
    assert {line.removeprefix("/opt/package") for line in shown.split()} == {
        *(f"/usr/lib/cni/{name}" for name in packages(declared())),
        "/etc/cni/net.d/10-bridge.conflist",
        *(f"/usr/lib/cni/pycni/{name}" for name in ("bin/pycni", "installed.json", "lock")),
    }
    # What is packed runs where it is unpacked.
    host.run(["mount", "--bind", "/opt/package/usr/lib/cni", "/mnt"])
    assert "pycni 0" in host.run(["/mnt/pycni/bin/pycni", "version"])
    host.run(["umount", "/mnt"])
    assert "/usr/lib/cni/pycni: removed" in host.run([*make, "uninstall"])
    shown = host.run(["find", "/opt", "-type", "f"])
    assert shown.split() == ["/opt/package/etc/cni/net.d/10-bridge.conflist"]
