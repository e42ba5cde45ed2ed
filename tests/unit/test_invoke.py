"""A plugin is looked for in the folders of CNI_PATH, and what is nearly there is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni import delegate
from cni.errors import Code

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    """Return two folders of plugins, the second one with a plugin of each kind of name."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    for name in ("host-local", "Bridge", "my_ipam"):
        (tmp_path / "second" / name).touch()
    return [str(tmp_path / "first"), str(tmp_path / "second")]


def refusal(type_: str, path: list[str]) -> delegate.NothingDoneError:
    with pytest.raises(delegate.NothingDoneError) as caught:
        delegate.find(type_, path)
    return caught.value


def test_the_first_file_of_the_name_counts(folders: list[str], tmp_path: Path) -> None:
    assert delegate.find("host-local", folders) == tmp_path / "second/host-local"
    (tmp_path / "first/host-local").touch()
    assert delegate.find("host-local", folders) == tmp_path / "first/host-local"


@pytest.mark.parametrize(
    ("type_", "near"), [("host_local", "host-local"), ("bridge", "Bridge"), ("MY-ipam", "my_ipam")]
)
def test_a_name_that_is_nearly_right_is_told(folders: list[str], type_: str, near: str) -> None:
    error = refusal(type_, folders)
    assert error.code == Code.INVALID_CONFIG
    assert error.msg == f'failed to find plugin "{type_}" in path [{" ".join(folders)}]'
    assert error.details == f"there is {folders[1]}/{near}"


def test_folders_that_are_not_there_are_told_too(folders: list[str]) -> None:
    error = refusal("bridge", ["/no/such", *folders])
    assert error.details == f"no such folder: /no/such; there is {folders[1]}/Bridge"


@pytest.mark.parametrize("folder", ["/" + "x" * 300, "/x\0"])
def test_a_folder_that_there_cannot_be_is_no_fault(folders: list[str], folder: str) -> None:
    assert refusal("bridge", [folder, *folders]).details == (
        f"no such folder: {folder}; there is {folders[1]}/Bridge"
    )


def test_where_nothing_is_near_the_remedy_is_told(folders: list[str]) -> None:
    assert refusal("absent", folders).details == "install it there or correct CNI_PATH"


def test_a_file_in_the_place_of_a_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal("absent", [str(tmp_path / "file")]).details == f"no such folder: {tmp_path}/file"


@pytest.mark.parametrize(
    ("type_", "path", "code", "message"),
    [
        ("", ["/bin"], Code.INVALID_CONFIG, "no plugin name provided"),
        ("../sh", ["/bin"], Code.INVALID_CONFIG, "invalid plugin name: ../sh"),
        ("..", ["/bin"], Code.INVALID_CONFIG, "invalid plugin name: .."),
        ("bridge", [], Code.INVALID_ENVIRONMENT, "no paths provided"),
    ],
)
def test_what_cannot_be_looked_for_is_refused(type_: str, path: list[str], code: Code, message: str) -> None:
    error = refusal(type_, path)
    assert (error.code, error.msg) == (code, message)
    assert error.details


def test_an_error_object_says_that_nothing_is_left() -> None:
    told = delegate.error_of("odd", 1, b'{"code": 11, "msg": "later", "details": "soon"}')
    assert isinstance(told, delegate.NothingDoneError)
    assert (told.code, told.msg, told.details) == (11, "later", "soon")


@pytest.mark.parametrize(
    ("status", "stdout", "message", "details"),
    [
        (1, b"", "plugin odd failed with exit status 1 and no error object", "it printed nothing"),
        (-9, b"half a", "plugin odd failed with signal 9 and no error object", "it printed: half a"),
        (1, b'{"code": "x"}', "plugin odd failed with exit status 1 and no error object", "it printed: "),
    ],
)
def test_an_end_without_an_error_object_may_leave_anything(
    status: int, stdout: bytes, message: str, details: str
) -> None:
    told = delegate.error_of("odd", status, stdout)
    assert not isinstance(told, delegate.NothingDoneError)
    assert (told.code, told.msg) == (Code.INTERNAL, message)
    assert told.details.startswith(details)
