"""The small gRPC client of the test library: what it writes is protobuf, and it reads what it writes."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import grpc

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.grpc import Value

VALUES = st.one_of(st.integers(0, 2**63), st.binary(max_size=300))


def test_the_example_of_the_protobuf_documentation() -> None:
    assert grpc.encode({1: 150}) == bytes.fromhex("089601")
    assert grpc.encode({2: "testing"}) == bytes.fromhex("120774657374696e67")


@given(st.dictionaries(st.integers(1, 2000), VALUES, max_size=6))
def test_an_encoded_message_is_decoded_unchanged(fields: dict[int, Value]) -> None:
    assert dict(grpc.decode(grpc.encode(fields))) == fields


def test_a_list_is_a_repeated_field() -> None:
    assert list(grpc.decode(grpc.encode({3: ["a", "b"]}))) == [(3, b"a"), (3, b"b")]


@pytest.mark.parametrize(("frames", "answer"), [((0, b"\0\0\0\0\2hi"), b"hi"), ((1, b""), None)])
def test_a_call_gives_the_answer_or_says_that_it_failed(
    tmp_path: Path, frames: tuple[int, bytes], answer: bytes | None
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        server.listen()
        thread = threading.Thread(target=_answer, args=(server, *frames))
        thread.start()
        if answer is None:
            with pytest.raises(grpc.CallError, match="/a/C failed"):
                grpc.call(str(tmp_path / "s"), "/a/C", b"")
        else:
            assert grpc.call(str(tmp_path / "s"), "/a/C", b"") == answer
        thread.join()


def _answer(server: socket.socket, kind: int, payload: bytes) -> None:
    """Answer with one frame that ends the stream."""
    connection, _ = server.accept()
    with connection:
        connection.recv(65536)
        connection.sendall(len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, 1, 1) + payload)
        connection.recv(65536)
