"""No file outside a plugin's folder names a plugin.

A new plugin is one new folder, and a plugin can be renamed or removed with its folder. This holds for cni/,
build/ and tests/. Tests that need some network take their plugins from `tests/support/scene.py`. Tests of
what holds for every plugin take theirs from `tests/support/subjects.py`. A test of one plugin's behaviour
belongs to that plugin's folder. EXCEPTIONS lists the files that are about certain plugins, with the reason.

A plugin is named by

- an import of its package, or its package's name in a text ("cni_bridge"),
- its executable in a text ("/opt/cni/bin/bridge"), or its type in a text that is JSON,
- a literal that is equal to its name.

Some plugins have the name of a link kind of the kernel, or of another room or module of cni: "bridge",
"vlan", "firewall". A literal that is equal to such a word names the plugin only as a type in a configuration,
as a file in a folder, or as the first argument of a call. It does not in ["ip", "link", "add", "br0", "type",
"bridge"], nor as a key of a configuration.

Comments, docstrings and names of variables may name plugins.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

import pytest

import layout
from plugin_table import ROOT, declared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from layout import Source

NAMES = {name for plugin in declared() for name in plugin.names}
PACKAGES = {plugin.package for plugin in declared()}
# Names that mean something else, too.
WORDS = NAMES & {part for path in (ROOT / "cni").rglob("*.py") for part in (path.stem, path.parent.name)}
_ANY = "|".join(map(re.escape, sorted(NAMES)))
IN_TEXT = re.compile(
    rf"(?<![\w-])(?:{'|'.join(PACKAGES)})(?!\w)"
    rf'|/(?P<file>{_ANY})(?![\w./-])|"type": ?"(?P<type>{_ANY})"'
)

# A file that is about certain plugins: the reason.
EXCEPTIONS = {
    "cni/cli/new_plugin.py": "the template of new plugins",
    "cni/testing/network.py": "the network of a plugin author's first test",
    "build/bench/sides.py": "compares these with Debian's Go plugins",
    "build/demo.py": "shows one network",
    "build/install_selftest.py": "tries one network after an installation",
    "tests/interop/test_containerd.py": "the lists that containerd runs",
    "tests/interop/test_containerd_names.py": "the list with names that containerd runs",
    "tests/interop/test_podman.py": "the lists that podman writes",
    "tests/netns/test_pycni_old_lists.py": "files that other tools have written",
    "tests/netns/test_renamed_plugins.py": "names that other projects give to these plugins",
    "tests/support/scene.py": "the usual network",
    "tests/unit/test_plugin_names.py": "this list",
}
MOST = 15


@pytest.fixture(scope="module")
def named() -> dict[str, list[tuple[str, int]]]:
    """Return the files outside the plugins' folders that name plugins, with what `find_names` yields."""
    sources = layout.read_tree(ROOT, ("cni", "build", "tests"))
    every = ((str(source.path), list(find_names(source))) for source in sources)
    return {path: names for path, names in every if names}


def find_names(source: Source) -> Iterator[tuple[str, int]]:
    """Yield each plugin that a file names, with the line."""
    for each in source.imports:
        if each.module.split(".")[0] in PACKAGES:
            yield each.module, each.line
    as_plugins = {use for node in source.nodes for use in _find_uses(node)}
    # Texts that are statements of their own.
    docstrings = {node.value for node in source.nodes if isinstance(node, ast.Expr)}
    for node in source.nodes:
        if not isinstance(node, ast.Constant) or node in docstrings:
            continue
        text = node.value.decode(errors="replace") if isinstance(node.value, bytes) else node.value
        if not isinstance(text, str):
            continue
        if (text in NAMES and (text not in WORDS or node in as_plugins)) or IN_TEXT.search(text):
            yield text, node.lineno


def _find_uses(node: ast.AST) -> Iterator[ast.expr]:
    """Yield types in configurations, files in folders and first arguments of calls."""
    if isinstance(node, ast.Dict):
        yield from (
            value
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant) and str(key.value).lower() == "type"
        )
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
        yield node.right
    elif isinstance(node, ast.Call):
        yield from (each.value for each in node.keywords if each.arg in {"type", "type_", "plugin"})
        yield from node.args[:1]
    elif isinstance(node, ast.Compare) and re.search(r"\.type$|\['type'\]$", ast.unparse(node.left)):
        yield from node.comparators


def list_wrong(path: str, names: Iterable[tuple[str, int]]) -> list[str]:
    """List the names in a file that is no exception."""
    if path in EXCEPTIONS:
        return []
    return [f"{path}:{line} names a plugin: {name[:60]!r}" for name, line in names]


def find_wrong(path: str, text: str) -> list[str]:
    """List the names in a text as if it were the file."""
    return list_wrong(path, find_names(layout.parse(path, text)))


def test_no_file_outside_a_plugins_folder_names_a_plugin(named: dict[str, list[tuple[str, int]]]) -> None:
    assert [wrong for path, names in named.items() for wrong in list_wrong(path, names)] == []


def test_each_exception_is_needed(named: dict[str, list[tuple[str, int]]]) -> None:
    assert set(EXCEPTIONS) == set(named)


def test_the_exceptions_are_few() -> None:
    assert len(EXCEPTIONS) <= MOST


@pytest.mark.parametrize(
    "text",
    [
        'if name == "portmap": pass',
        'PLUGINS = ("bridge", "portmap")',
        'KEYS = {"host-local": 1}',
        'x = b"loopback"',
        "import cni_bridge.plan",
        "def f():\n    from cni_static_ipam import conf",
        'f("import cni_bridge")',
        'call("bridge", "ADD")',
        'call(plugin="bridge")',
        'GO / "bridge"',
        'f"{folder}/bridge"',
        'run("/opt/cni/bin/bridge < conf")',
        'conf = {"type": "bridge", "bridge": "br0"}',
        'conf["type"] == "bridge"',
        'each.type in "bridge"',
        """text = '{"name": "net1", "type": "bridge"}'""",
    ],
)
def test_a_plugin_is_named(text: str) -> None:
    assert len(find_wrong("tests/x.py", text)) == 1


@pytest.mark.parametrize(
    "text",
    [
        '# like portmap\n"""As "portmap" does."""',
        'run(["ip", "link", "add", "br0", "type", "bridge"])',
        'run(["bridge", "link", "show"])',
        'kind = "bridge"',
        'link["kind"] == "bridge"',
        'conf = {"type": name, "bridge": "br0"}',
        'conf["bridge"]',
        'read("/sys/class/net/br0/bridge/ageing_time")',
        "import cni.kernel.bridge",
    ],
)
def test_no_plugin_is_named(text: str) -> None:
    assert find_wrong("tests/x.py", text) == []


def test_an_exception_may_name_plugins() -> None:
    assert find_wrong("tests/support/scene.py", 'IPAM = "host-local"') == []
