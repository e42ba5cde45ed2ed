"""Errors as objects, texts and pickles."""

from __future__ import annotations

import errno
import pickle

import pytest

from cni.errors import CniError, Code, ErrorList, KernelError


def test_an_error_object_has_only_what_is_known() -> None:
    assert CniError(Code.POOL, "full").to_dict() == {"code": 102, "msg": "full"}
    assert CniError(Code.POOL, "full", "wait").to_dict("1.0.0") == {
        "cniVersion": "1.0.0",
        "code": 102,
        "msg": "full",
        "details": "wait",
    }


def test_an_error_object_quotes_no_more_than_a_log_can_take() -> None:
    shown = CniError(Code.INVALID_CONFIG, "m" * 16385, "d" * 1_000_000).to_dict()
    assert shown["msg"] == "m" * 16384 + "... (1 more characters)"
    assert shown["details"] == "d" * 16384 + "... (983616 more characters)"


def test_a_kernel_error_keeps_the_kernels_words() -> None:
    error = KernelError('could not add "br0"', errno.EOPNOTSUPP, "Unknown device type")
    assert str(error) == 'could not add "br0": operation not supported: kernel: Unknown device type'


def test_errors_survive_the_way_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(KernelError("look up x", errno.ENODEV, "no")))  # noqa: S301 - our own bytes
    assert isinstance(error, KernelError)
    assert (error.errno, error.said, str(error)) == (
        errno.ENODEV,
        "no",
        "look up x: no such device: kernel: no",
    )


def test_a_list_of_errors_tries_all_and_raises_the_first() -> None:
    done: list[int] = []

    def refuse(text: str) -> None:
        raise CniError(Code.FIREWALL, text)

    def absent() -> None:
        raise OSError(errno.EACCES, "closed", "/x")

    errors = ErrorList()
    errors.attempt(refuse, "first")
    errors.attempt(done.append, 1)
    errors.attempt(absent)
    with pytest.raises(CniError) as caught:
        errors.raise_any()
    assert done == [1]
    assert (caught.value.code, caught.value.msg) == (Code.FIREWALL, "first")
    assert "also: [Errno 13] closed: '/x'" in caught.value.details


def test_an_empty_list_raises_nothing() -> None:
    ErrorList().raise_any()
