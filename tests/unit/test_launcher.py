"""The launcher by itself: a static program, whose own failures are CNI error objects too."""

from __future__ import annotations

import json
import struct
import subprocess
from pathlib import Path

import pytest

from cni.state import executables

# elf(5): what names the dynamic linker, and what is for it.
PT_DYNAMIC, PT_INTERP = 2, 3


def _segments(program: bytes) -> set[int]:
    """Return the types of a 64-bit ELF file's segments."""
    assert program[:5] == b"\x7fELF\x02"
    offset, size, number = *struct.unpack_from("=Q", program, 32), *struct.unpack_from("=HH", program, 54)
    return {struct.unpack_from("=I", program, offset + size * each)[0] for each in range(number)}


def test_no_library_is_loaded(launcher: Path) -> None:
    assert PT_INTERP not in _segments(launcher.read_bytes())
    # Seen where there is one.
    assert {PT_INTERP, PT_DYNAMIC} <= _segments(Path("/bin/sh").read_bytes())


@pytest.mark.parametrize(
    ("name", "shown"),
    [("first", "first"), ('a"b', "a?b"), ("a\\n\n", "a?n?"), ("\u00e9", "??"), ("x" * 200, "x" * 31)],
    ids=["plain", "quote", "backslash", "accent", "long"],
)
@pytest.mark.parametrize("verb", ["ADD", "VERSION"])
def test_a_suite_that_is_gone_is_one_error_object(
    launcher: Path, tmp_path: Path, name: str, shown: str, verb: str
) -> None:
    executables.put(tmp_path, [name], executables.launcher(launcher.read_bytes(), "/nowhere", "b"))
    done = subprocess.run(
        [tmp_path / name], env={"PYCNI_WARM": "off", "CNI_COMMAND": verb}, capture_output=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == b""
    error = json.loads(done.stdout)
    assert error == {
        "cniVersion": "1.1.0",
        "code": 5,
        "msg": f"plugin {shown}: cannot execute /nowhere/pycni: No such file or directory",
        "details": 'Run "make install" again, or copy the bundle\'s folder together with the executables.',
    }
