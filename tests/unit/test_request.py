"""CNI_* variables and CNI_ARGS: what is refused, and with which words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError, Code
from cni.request import Request, Verb, from_env, parse_args

DATA = Path(__file__).parents[1] / "data"


def table(name: str) -> list[Any]:
    return [pytest.param(row, id=row["what"]) for row in json.loads((DATA / name).read_text())]


@pytest.mark.parametrize("row", table("environments.json"))
def test_a_wrong_environment_is_refused_by_name(row: dict[str, Any]) -> None:
    with pytest.raises(CniError) as caught:
        from_env(row["env"])
    assert (caught.value.code, caught.value.msg) == (Code.INVALID_ENVIRONMENT, row["msg"])


@pytest.mark.parametrize("row", table("args.json"))
def test_args_are_read_as_go_reads_them(row: dict[str, Any]) -> None:
    if "gives" in row:
        assert parse_args(row["args"], ("MAC",)) == row["gives"]
        return
    with pytest.raises(CniError) as caught:
        parse_args(row["args"], ("MAC",))
    assert (caught.value.code, caught.value.msg) == (Code.INVALID_ENVIRONMENT, row["msg"])


def test_variables_that_a_verb_does_not_need_are_not_looked_at() -> None:
    env = {"CNI_COMMAND": "GC", "CNI_PATH": "/a:/b", "CNI_IFNAME": "a/b", "CNI_CONTAINERID": "/"}
    assert from_env(env) == Request(Verb.GC, path=("/a", "/b"), env=env)


def test_del_needs_no_netns() -> None:
    env = {"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_PATH": "/p"}
    assert from_env(env).netns == ""
