"""Installations that cannot succeed say so before anything changes; what fails is not put in place."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from plugin_table import ROOT
from tests.netns.bundled_host import BINDIR, PREFIX, add_check_del, empty_opt, install
from tests.support import scene

if TYPE_CHECKING:
    import subprocess

    from cni.testing import Host

__all__ = ["empty_opt"]

MIB = 1 << 20


def _try(host: Host, bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return host.place.run([str(bundle / "pycni"), "--install", *options], check=False)


def _files(host: Host, *folders: str) -> str:
    return host.run(
        ["sh", "-c", f"find {' '.join(folders)} -type f -exec sha256sum {{}} + 2>/dev/null | sort"]
    )


def _refused(host: Host, bundle: Path, *options: str) -> str:
    """Return the message of a refused installation; it must have changed nothing."""
    before = host.run(["find", "/opt", "/etc/cni"])
    done = _try(host, bundle, *options)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert host.run(["find", "/opt", "/etc/cni"]) == before
    return done.stderr


REFUSED = [
    ("--bindir=rel/dir", 'BINDIR is "rel/dir": it must be an absolute path'),
    ("--bindir=", 'BINDIR is "": it must be an absolute path'),
    ("--prefix=rel", 'PREFIX is "rel": it must be an absolute path'),
    ("--prefix=", 'PREFIX is "": it must be an absolute path'),
    ("--confdir=net.d", 'CONFDIR is "net.d": it must be an absolute path'),
    ("--sbindir=sbin", 'SBINDIR is "sbin": it must be an absolute path'),
    ("--destdir=root", 'DESTDIR is "root": it must be an absolute path'),
    ("--prefix=/", "PREFIX is /: choose a folder of its own"),
    ("--prefix=//", "PREFIX is /: choose a folder of its own"),
    ("--prefix=/opt/..", "PREFIX is /: choose a folder of its own"),
    ("--bindir=/", "BINDIR is /: choose a folder of its own"),
    ("--bindir=/opt/a:b", "BINDIR is '/opt/a:b': a colon or a control character cannot be in it"),
    ("--prefix=/opt/a\nb", "PREFIX is '/opt/a\\nb': a colon or a control character cannot be in it"),
    (f"--prefix=/opt/{'x' * 250}", "PREFIX has more than 200 bytes: choose a shorter path"),
    ("--bindir=/proc/cpuinfo/bin", "/proc/cpuinfo is not a folder"),
    ("--conf=none", "there is no conf/none.conflist"),
    ("--units=yes", "UNITS=yes, but systemd does not run here"),
]


def test_options_that_cannot_be_meant(empty_opt: Host, bundle: Path) -> None:
    for option, message in REFUSED:
        assert message in _refused(empty_opt, bundle, option), option


def test_an_abbreviated_or_misspelt_option_is_refused(empty_opt: Host, bundle: Path) -> None:
    for option in ("--pre=/opt/x", "--prefx=/opt/x"):
        done = _try(empty_opt, bundle, option)
        assert (done.returncode, option in done.stderr) == (2, True)
    assert empty_opt.run(["ls", "/opt"]) == ""


def test_a_misspelt_variable_of_make_is_refused(empty_opt: Host) -> None:
    for target in ("install", "uninstall", "dist", "test", "bench"):
        make = ["make", "--silent", "--directory", str(ROOT), target, "PREFX=/opt/x"]
        done = empty_opt.place.run(make, check=False)
        assert (done.returncode, done.stdout) == (2, ""), target
        assert "unknown variable PREFX; the known ones are PYTHON FROZEN_PYTHON CC BINDIR" in done.stderr
    assert empty_opt.run(["ls", "/opt"]) == ""


def test_a_full_disk_is_told_before(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    host.run(["mount", "-o", "remount,size=8m", "/opt"])
    told = _refused(host, bundle)
    assert told.startswith("/opt has 8 MiB of free space, ")
    assert told.endswith(" MiB are needed\n")
    host.run(["mount", "-o", "remount,size=100m,nr_inodes=50", "/opt"])
    assert "/opt has room for " in _refused(host, bundle)


def test_a_disk_that_fills_meanwhile_leaves_what_was_before(empty_opt: Host, bundle: Path) -> None:
    """Another program takes the space while the installation copies."""
    host = empty_opt
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    host.run(["mount", "-o", f"remount,size={size + 12 * MIB}", "/opt"])
    host.run(["mkdir", "-p", str(BINDIR)])
    writer = host.place.popen(
        ["sh", "-c", "while [ ! -d /opt/cni/bin/pycni ]; do :; done; exec cat /dev/zero > /opt/cni/big"]
    )
    done = _try(host, bundle)
    writer.communicate()
    assert done.returncode == 1, done.stdout
    assert "No space left on device" in done.stderr
    assert "None" not in done.stderr
    host.run(["rm", "/opt/cni/big"])
    assert host.run(["find", "/opt", "-type", "f"]) == ""


def test_file_systems_that_nothing_runs_from_or_can_be_written_to(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    host.run(["mkdir", "-p", "/opt/x"])
    host.run(["mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", "/opt/x"])
    told = _refused(host, bundle, "--prefix=/opt/x/pycni")
    assert told.startswith("no program runs from /opt/x/pycni: its file system is mounted noexec.")
    assert "/opt/x/bin: its file system is mounted noexec" in _refused(host, bundle, "--bindir=/opt/x/bin")
    host.run(["mount", "-o", "remount,ro", "/opt/x"])
    assert "/opt/x is on a file system that is mounted read-only" in _refused(
        host, bundle, "--prefix=/opt/x/y"
    )


def test_another_user_is_told_to_be_root(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    host.run(["chmod", "755", "/opt"])
    # Others may not enter the folder of these sources.
    host.run(["cp", "-r", str(bundle), "/opt/bundle"])
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/opt/bundle/pycni"]
    done = host.place.run([*argv, "--install"], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "/opt cannot be written to: run as root\n"
    host.run(["/opt/bundle/pycni", "--install"])
    done = host.place.run([*argv, "--uninstall"], check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{PREFIX} cannot be written to: run as root\n"


def test_a_folder_with_a_plugins_name_is_refused(empty_opt: Host, bundle: Path) -> None:
    empty_opt.run(["mkdir", "-p", str(BINDIR / scene.INTERFACE)])
    assert f"{BINDIR}/{scene.INTERFACE} is a folder: remove it" in _refused(empty_opt, bundle)


def test_a_link_or_a_network_of_somebody_else_is_told_before(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    host.run(["sh", "-c", "mkdir -p /opt/sbin /etc/cni/net.d; echo x > /opt/sbin/pycni"])
    assert "/opt/sbin/pycni is of another program" in _refused(host, bundle, "--sbindir=/opt/sbin")
    host.run(["sh", "-c", "echo x > /etc/cni/net.d/10-bridge.conflist"])
    assert "10-bridge.conflist has other contents" in _refused(host, bundle, "--conf=10-bridge")


def test_paths_with_spaces_quotes_and_letters_work(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    bindir = "/opt/it's a \u00e9 $HOME/bin"
    told = host.run([str(bundle / "pycni"), "--install", f"--bindir={bindir}"])
    assert "self-test: ADD and DEL, cold and warm" in told
    assert "pycni 0" in host.run([f"{bindir}/pycni/bin/pycni", "version"])
    host.run([f"{bindir}/pycni/bin/pycni", "--uninstall"])
    assert host.run(["find", "/opt", "-type", "f"]) == ""


# ---- the self-test ----


def _broken(bundle: Path, folder: Path) -> Path:
    """Make a bundle whose plugins fail when they are called."""
    broken = folder / "broken"
    shutil.copytree(bundle, broken)
    (broken / "build").write_text("9.9.9-broken")
    for path in broken.rglob("add.pyc"):
        path.write_bytes(b"no code")
    return broken


def test_a_bundle_that_does_not_work_changes_nothing(empty_opt: Host, bundle: Path, tmp_path: Path) -> None:
    host, broken = empty_opt, _broken(bundle, tmp_path)
    host.run(["sh", "-c", f"mkdir -p {BINDIR}; echo theirs > {BINDIR}/{scene.INTERFACE}"])
    before = _files(host, "/opt", "/etc/cni", "/run")
    told = _try(host, broken)
    assert told.returncode == 1
    assert "the self-test has failed, everything is as it was before: " in told.stderr
    assert "SELFTEST=no (--no-self-test) installs without it" in told.stderr
    assert _files(host, "/opt", "/etc/cni", "/run") == before
    # Nor does it over a suite that works.
    install(host, bundle)
    before = _files(host, "/opt", "/etc/cni", "/run")
    assert _try(host, broken).returncode == 1
    assert _files(host, "/opt", "/etc/cni", "/run") == before
    add_check_del(host, host.sandbox("c1"), warm="on")
    assert "self-test: skipped, as SELFTEST=no" in _try(host, broken, "--no-self-test").stdout
    assert not host.plugin(scene.INTERFACE, "ADD", {"name": "x"}).ok


def test_the_self_test_leaves_nothing(empty_opt: Host, bundle: Path) -> None:
    host = empty_opt
    before = host.snapshot(exact=True), host.run(["ls", "-R", "/run"])
    assert "self-test: ADD and DEL, cold and warm\n" in _try(host, bundle).stdout
    assert (host.snapshot(exact=True), host.run(["ls", "-R", "/run"])) == before
    deadline = time.monotonic() + 60
    while _processes(host):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _processes(host: Host) -> int:
    """Count the processes on a host that run from the installed folder."""
    mounts, count = Path(f"/proc/{host.pid}/ns/mnt").stat(), 0
    for each in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_here = (each / "ns/mnt").stat().st_ino == mounts.st_ino
            count += is_here and str((each / "exe").readlink()).startswith(f"{PREFIX}/")
    return count


def test_the_self_test_is_skipped_where_it_cannot_be(empty_opt: Host, bundle: Path) -> None:
    """In a container that an image is built in, for another root, and where warm start is switched off."""
    host = empty_opt
    argv = [str(bundle / "pycni"), "--install"]
    told = host.run(["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", *argv])
    assert "self-test: skipped, as this process may not make namespaces: Operation not permitted\n" in told
    assert "self-test: skipped, as DESTDIR is set\n" in host.run([*argv, "--destdir=/opt/root"])
    told = host.run(["prlimit", "--as=4000000000", *argv])
    assert "self-test: ADD and DEL cold; not warm, as this process has limits\n" in told
    host.run(["sh", "-c", "mkdir -p /etc/cni/pycni; touch /etc/cni/pycni/warm-off"])
    told = host.run(argv)
    assert "ADD and DEL cold; not warm, as /etc/cni/pycni/warm-off switches it off\n" in told
