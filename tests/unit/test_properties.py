"""One list of properties serves CHECK, repair and STATUS."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from cni.errors import CniError, Code
from cni.operations import properties
from cni.operations.properties import Property

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.undo import Undo


class World:
    """Values that can differ from what they should be, with fixes that restore them."""

    def __init__(self, **values: int) -> None:
        self.values = values
        self.fixed: list[str] = []

    def fix(self, key: str, *, fails: bool = False) -> properties.Fix:
        def fix(undo: Undo) -> str:
            undo.add(f"restore {key}", self.values.__setitem__, key, self.values[key])
            self.values[key] = 1
            self.fixed.append(key)
            if fails:
                raise CniError(Code.KERNEL, f"could not set {key}")
            return f"set {key}"

        return fix

    def list_all(self) -> Iterator[Property]:
        for key in list(self.values):
            yield Property(key, self.values[key], 1, f"{key} is wrong", self.fix(key))


def raise_error(_: object = None) -> Iterator[Property]:
    yield from ()
    raise CniError(Code.POOL, "no lease", "It is gone.")


def test_check_passes_without_a_difference() -> None:
    properties.check(World(a=1, b=1).list_all())


def test_check_reports_the_first_difference_and_the_others_in_the_details() -> None:
    listed = [Property("a", 1, 1, "a"), Property("b", 2, 1, "b is wrong"), Property("c", "x", "y")]
    with pytest.raises(CniError) as caught:
        properties.check([*listed, listed[1]])
    assert (caught.value.code, caught.value.msg) == (Code.MISMATCH, "b is wrong")
    assert caught.value.details == "c is x, not y"


def test_check_shows_the_remedy_of_the_first_difference() -> None:
    listed = [Property(each, 0, 1, remedy=f"Set {each}.") for each in "ab"]
    with pytest.raises(CniError) as caught:
        properties.check(listed, prefix="sample: ")
    assert (caught.value.msg, caught.value.details) == ("sample: a is 0, not 1", "Set a.; b is 0, not 1")


def test_check_may_be_brief() -> None:
    rules = [Property(f"rule {each}", None, each, f"rule {each} is gone", brief="rules") for each in "ab"]
    assert properties.list_differences(rules) == ["rule a is gone", "rule b is gone"]
    assert properties.list_differences(rules, brief=True) == ["rules"]


def test_check_puts_the_error_of_ipam_last() -> None:
    for listed, expected in (
        ([], (Code.POOL, "no lease", "It is gone.")),
        ([Property("a", 0, 1)], (Code.MISMATCH, "a is 0, not 1", "no lease: It is gone.")),
    ):
        with pytest.raises(CniError) as caught:
            properties.check(listed, lambda: next(raise_error()))
        assert (caught.value.code, caught.value.msg, caught.value.details) == expected


def test_check_does_not_ask_ipam_when_the_properties_cannot_be_read() -> None:
    asked: list[str] = []
    with pytest.raises(CniError, match="no lease"):
        properties.check(raise_error(), lambda: asked.append("ipam"))
    assert asked == []


def test_repair_fixes_what_differs() -> None:
    world = World(a=0, b=1, c=2)
    done = properties.repair(world.list_all())
    assert (done.done, done.failed, world.values) == (["set a", "set c"], [], {"a": 1, "b": 1, "c": 1})


def test_repair_runs_a_shared_fix_once() -> None:
    world = World(a=0)
    fix = world.fix("a")
    properties.repair([Property("a", 0, 1, fix=fix), Property("b", 0, 1, fix=fix), Property("c", 0, 1)])
    assert world.fixed == ["a"]


def test_repair_undoes_a_fix_that_fails_and_goes_on() -> None:
    world = World(a=0, b=0)
    listed = [Property("a", 0, 1, fix=world.fix("a", fails=True)), Property("b", 0, 1, fix=world.fix("b"))]
    done = properties.repair(listed)
    assert [error.msg for error in done.failed] == ["could not set a"]
    assert (done.done, world.values) == (["set b"], {"a": 0, "b": 1})


def test_repair_compares_each_property_after_the_fixes_before_it() -> None:
    world = World(a=0)

    def listed() -> Iterator[Property]:
        yield from world.list_all()
        yield Property("a again", world.values["a"], 1, fix=world.fix("a"))

    assert properties.repair(listed()).done == ["set a"]


def test_repair_raises_only_if_nothing_was_fixed() -> None:
    def listed(world: World) -> Iterator[Property]:
        yield from world.list_all()
        yield from raise_error()

    with pytest.raises(CniError, match="no lease"):
        properties.repair(listed(World(a=1)))
    done = properties.repair(listed(World(a=0)))
    assert (done.done, [error.msg for error in done.failed]) == (["set a"], ["no lease"])


def test_status_gets_the_sentence_and_the_object() -> None:
    listed = [
        Property("veth1", "down", "up", "Interface veth1 is down", impairment="links are down"),
        Property("veth2", "up", "up", impairment="links are down"),
        Property("link", "down", "up", "bridge is down"),
    ]
    assert list(properties.list_impairments(listed)) == [("links are down", "veth1"), ("bridge is down", "")]
