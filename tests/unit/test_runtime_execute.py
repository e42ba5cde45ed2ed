"""Plugins that end in every wrong way."""

import os
import threading
from pathlib import Path

import pytest

from cni.errors import CniError, Code
from cni.runtime.execute import run_plugin


def script(folder: Path, text: str) -> Path:
    path = folder / "plugin"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


GARBLED = "netplugin failed but error parsing its diagnostic message"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("exit 3", "netplugin failed with no error message: exit status 3"),
        ("kill -9 $$", "netplugin failed with no error message: signal: SIGKILL"),
        ("echo boom >&2; exit 1", 'netplugin failed: "boom": exit status 1'),
        ("printf '{}'; exit 1", "netplugin failed with no error message: exit status 1"),
        (
            "echo oops; exit 1",
            f'{GARBLED} "oops\\n": Expecting',
        ),
        (
            "echo '{}{}'; exit 1",
            f'{GARBLED} "{{}}{{}}\\n": Extra data',
        ),
        ("echo '[]'; exit 1", GARBLED),
        ("""echo '{"code":"x"}'; exit 1""", GARBLED),
    ],
)
def test_a_failure_without_an_error_object_is_told_as_libcni_does(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(CniError) as failure:
        run_plugin(script(tmp_path, text), os.environ, b"", 20)
    assert failure.value.msg.startswith(message)
    assert failure.value.code == Code.INTERNAL


def test_an_error_object_is_passed_on(tmp_path: Path) -> None:
    plugin = script(tmp_path, """echo '{"Code": 11, "msg": "busy", "details": "later"}'; exit 1""")
    with pytest.raises(CniError) as failure:
        run_plugin(plugin, os.environ, b"", 20)
    assert failure.value.to_dict() == {"code": 11, "msg": "busy", "details": "later"}


def test_stderr_explains_a_result_of_a_plugin_that_failed(tmp_path: Path) -> None:
    plugin = script(tmp_path, """echo '{"ips": []}'; echo killed >&2; exit 1""")
    with pytest.raises(CniError) as failure:
        run_plugin(plugin, os.environ, b"", 20)
    assert failure.value.msg == "netplugin failed with no error message: exit status 1"
    assert failure.value.details == 'stderr: "killed"'


def test_stderr_of_a_success_is_passed_on(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_plugin(script(tmp_path, "cat; echo note >&2"), os.environ, b"{}", 20) == b"{}"
    assert capfd.readouterr().err == "note\n"


def test_a_plugin_that_hangs_is_ended(tmp_path: Path) -> None:
    with pytest.raises(CniError, match=r"did not end within 0\.2 s") as failure:
        run_plugin(script(tmp_path, "exec sleep 60"), os.environ, b"", 0.2)
    assert failure.value.code == Code.TRY_AGAIN


def test_a_plugin_may_leave_stdin_unread(tmp_path: Path) -> None:
    assert run_plugin(script(tmp_path, "echo {}"), os.environ, b"x" * 1_000_000, 20) == b"{}\n"


def test_a_plugin_without_permission_is_named(tmp_path: Path) -> None:
    plugin = script(tmp_path, "exit 0")
    plugin.chmod(0o644)
    with pytest.raises(CniError, match=f"could not run {plugin}: Permission denied"):
        run_plugin(plugin, os.environ, b"", 20)


def test_a_plugin_being_written_is_tried_again(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin"
    plugin.write_bytes(Path("/bin/true").read_bytes())
    plugin.chmod(0o755)
    # The kernel does not execute a file that is open for writing.
    writer = plugin.open("ab")
    closing = threading.Timer(0.3, writer.close)
    closing.start()
    assert run_plugin(plugin, os.environ, b"", 20) == b""
    closing.join()
