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
    for name in ("first-ipam", "Link", "my_ipam"):
        (tmp_path / "second" / name).touch()
    return [str(tmp_path / "first"), str(tmp_path / "second")]


def refusal(type_: str, path: list[str]) -> delegate.NothingDoneError:
    with pytest.raises(delegate.NothingDoneError) as caught:
        delegate.find(type_, path)
    return caught.value


def test_the_first_file_of_the_name_counts(folders: list[str], tmp_path: Path) -> None:
    assert delegate.find("first-ipam", folders) == tmp_path / "second/first-ipam"
    (tmp_path / "first/first-ipam").touch()
    assert delegate.find("first-ipam", folders) == tmp_path / "first/first-ipam"


@pytest.mark.parametrize(
    ("type_", "near"), [("first_ipam", "first-ipam"), ("link", "Link"), ("MY-ipam", "my_ipam")]
)
def test_a_name_that_is_nearly_right_is_reported(folders: list[str], type_: str, near: str) -> None:
    error = refusal(type_, folders)
    assert error.code == Code.INVALID_CONFIG
    assert error.msg == f'failed to find plugin "{type_}" in path [{" ".join(folders)}]'
    assert error.details == f"there is {folders[1]}/{near}"


def test_folders_that_are_not_there_are_reported_too(folders: list[str]) -> None:
    error = refusal("link", ["/no/such", *folders])
    assert error.details == f"no such folder: /no/such; there is {folders[1]}/Link"


@pytest.mark.parametrize("folder", ["/" + "x" * 300, "/x\0"])
def test_a_folder_that_there_cannot_be_is_no_fault(folders: list[str], folder: str) -> None:
    assert refusal("link", [folder, *folders]).details == (
        f"no such folder: {folder}; there is {folders[1]}/Link"
    )


def test_a_name_unlike_any_plugin_gets_the_remedy(folders: list[str]) -> None:
    assert refusal("other", folders).details == "install it there or correct CNI_PATH"


def test_a_file_in_the_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refusal("other", [str(tmp_path / "file")]).details == f"no such folder: {tmp_path}/file"


@pytest.mark.parametrize(
    ("type_", "path", "code", "message"),
    [
        ("", ["/bin"], Code.INVALID_CONFIG, "no plugin name provided"),
        ("../sh", ["/bin"], Code.INVALID_CONFIG, "invalid plugin name: ../sh"),
        ("..", ["/bin"], Code.INVALID_CONFIG, "invalid plugin name: .."),
        ("link", [], Code.INVALID_ENVIRONMENT, "no paths provided"),
    ],
)
def test_an_impossible_plugin_name_is_refused(type_: str, path: list[str], code: Code, message: str) -> None:
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
