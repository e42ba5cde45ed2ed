"""The package exports what it says, at no cost; docs/api.md is what the sources make."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from functools import cache
from typing import TYPE_CHECKING

import pytest

import api_page
import cni
from plugin_table import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_LOADED = (
    "import sys, cni; assert cni.__version__; print(*[each for each in sys.modules if each[:4] == 'cni.'])"
)
_IMPORTED = (
    "import sys; from cni import CniError, Code; print(*[each for each in sys.modules if each[:4] == 'cni.'])"
)


def modules(script: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@cache
def exports() -> list[str]:
    return list(api_page.list_exports(ROOT / "cni"))


@pytest.mark.parametrize("name", cni.__all__)
def test_a_public_name_is_what_its_module_has(name: str) -> None:
    value = getattr(cni, name)
    [home] = [line for line in exports() if f"`{name}`" in line]
    module = home.split("`")[1]
    assert value is getattr(importlib.import_module(module), name)


def test_every_name_that_type_checkers_see_is_public() -> None:
    exported = re.findall(r"`(\w+)`", "\n".join(exports()))
    assert sorted(exported) == sorted(cni.__all__)
    assert set(cni.__all__) <= set(dir(cni))


def test_a_name_that_is_not_public() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = cni.nothing  # type: ignore[attr-defined]


def test_the_package_imports_nothing_before_it_is_used() -> None:
    assert modules(_LOADED) == set()
    assert modules(_IMPORTED) == {"cni.errors"}


def test_the_page_is_up_to_date() -> None:
    """Run `make pages` when this fails."""
    assert api_page.PAGE.read_text() == api_page.render(ROOT)


def test_the_page_names_every_room_for_plugins() -> None:
    text = api_page.PAGE.read_text()
    rooms = [each for each in api_page.ROOMS if (ROOT / "cni" / each).is_dir()]
    assert len(rooms) >= 6
    assert [each for each in rooms if f"\n### cni.{each}." not in text] == []


def test_a_change_of_a_signature_changes_the_page(tmp_path: Path) -> None:
    library = tmp_path / "cni"
    (library / "kernel").mkdir(parents=True)
    (library / "__init__.py").write_text("from cni.undo import Undo\n")
    (library / "undo.py").write_text('class Undo:\n    """Collect steps."""\n\n    size: int = 0\n')
    (library / "kernel" / "link.py").write_text('def find(name: str) -> int:\n    """Return it."""\n')
    text = api_page.render(tmp_path)
    assert "- of `cni.undo`: `Undo`" in text
    assert "- `class Undo`: Collect steps.\n  - `size: int = 0`" in text
    assert "- `find(name: str) -> int`: Return it." in text
    (library / "kernel" / "link.py").write_text('def find(nl: str) -> int:\n    """Return it."""\n')
    assert api_page.render(tmp_path) != text


def test_a_class_of_a_room_has_its_fields_with_their_meaning(tmp_path: Path) -> None:
    library = tmp_path / "cni"
    (library / "kernel").mkdir(parents=True)
    (library / "__init__.py").write_text("")
    text = '''class Link(NamedTuple):
    """A link. Names differ.

    It may be gone.

    Attributes:
        name: Name of the link,
            of 15 bytes at most.
        mtu: Its MTU.
    """

    name: str
    mtu: int = 0
    index: int = 0
'''
    (library / "kernel" / "link.py").write_text(text)
    assert (
        "- `class Link(NamedTuple)`: A link. Names differ. It may be gone.\n"
        "  - `name: str`: Name of the link, of 15 bytes at most.\n"
        "  - `mtu: int = 0`: Its MTU.\n"
        "  - `index: int = 0`\n"
    ) in api_page.render(tmp_path)


@pytest.mark.parametrize(
    "name", ["Interface", "Ip", "Route", "Dns", "Result", "Request", "Attachment", "Plugin"]
)
def test_every_field_of_the_stable_values_has_a_meaning(name: str) -> None:
    _, _, entry = api_page.PAGE.read_text().partition(f"- `class {name}(")
    lines = entry.partition("\n- ")[0].partition("\n\n")[0].splitlines()[1:]
    assert len(lines) >= 2
    assert [line for line in lines if "`: " not in line] == []
