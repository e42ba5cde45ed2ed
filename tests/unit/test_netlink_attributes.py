"""Attributes of nfnetlink messages are written and read as the kernel lays them out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cni.firewall import nft
from cni.kernel import attributes


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=300))))
def test_attributes_come_back_as_written(parts: list[tuple[int, bytes]]) -> None:
    data = b"".join(attributes.attribute(kind, payload) for kind, payload in parts)
    assert len(data) % 4 == 0
    assert list(attributes.each_attribute(data)) == parts


@given(st.lists(st.tuples(st.integers(0, 9), st.binary(max_size=9))), st.sets(st.integers(0, 9)))
def test_of_one_kind_the_last_counts_and_others_can_be_left_out(
    parts: list[tuple[int, bytes]], wanted: set[int]
) -> None:
    data = b"".join(attributes.attribute(kind | 0x8000, payload) for kind, payload in parts)
    assert attributes.attributes(data) == dict(parts)
    some = {kind: payload for kind, payload in dict(parts).items() if kind in wanted}
    assert attributes.attributes(data, wanted) == some


@given(st.binary(max_size=200))
def test_reading_garbage_ends(data: bytes) -> None:
    assert all(kind <= 0x3FFF for kind in attributes.attributes(data))
    assert all(kind <= 0x3FFF for kind, _ in attributes.each_attribute(data))
    assert isinstance(nft.shown_comment(data), str)


def test_numbers_and_texts_are_laid_out_as_the_kernel_wants() -> None:
    assert attributes.u32(1, -4) == b"\x08\0\x01\0\xff\xff\xff\xfc"
    assert attributes.text(2, "abc") == b"\x08\0\x02\0abc\0"
    assert attributes.nest(3, attributes.text(2, "abc"))[:4] == b"\x0c\0\x03\x80"
    assert attributes.shown_text(b"abc\0") == "abc"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60))
def test_comments_come_back_as_written(comment: str) -> None:
    assert nft.shown_comment(b"\x05\x01x" + nft.comment_data(comment)) == comment
