"""The rules of the tree: allowed imports, sizes and names, and the files of a plugin folder.

Each rule reads one parsed file or a list of paths, and yields objections. Tests pass it samples.
docs/design.md has the reasons.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from cni.cli.new_plugin import TEMPLATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

# The rooms of cni from the bottom up. A module imports from its own room and from rooms earlier in this list.
# Flat modules are the public API; each counts as a separate room. Every module must be in a room.
ROOMS: tuple[frozenset[str], ...] = (
    frozenset({"", "__init__", "addresses", "conf", "conf_errors", "convert", "errors", "faults"})
    | {
        "json_types",
        "log",
        "marks",
        "misspelt",
        "plugin",
        "request",
        "result",
        "stops",
        "streams",
        "undo",
        "versions",
    },
    frozenset({"state"}),
    frozenset({"kernel"}),
    frozenset({"operations", "service"}),
    frozenset({"dns", "ipam"}),
    frozenset({"firewall"}),
    frozenset({"hostports"}),
    frozenset({"delegate"}),
    frozenset({"interface"}),
    frozenset({"skel"}),
    frozenset({"multicall"}),
    frozenset({"runtime", "warm"}),
    frozenset({"cli"}),
    frozenset({"program"}),
    frozenset({"testing"}),
)
PROTOCOL = ROOMS[0]
# `skel` starts a plugin. The plugin imports neither `skel` nor rooms above it.
FOR_PLUGINS = frozenset[str]().union(*ROOMS[:9])
_LEVELS = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}

# Standard modules that a plugin's conf.py and plan.py must not import.
IMPURE = {"ctypes", "fcntl", "os", "shutil", "socket", "subprocess", "tempfile", "time"}

# Modules of rooms above the protocol that are pure, as conf.py and plan.py must be.
PURE = {"cni.dns.names", "cni.firewall.intents", "cni.interface.conf", "cni.interface.plan", "cni.ipam.rules"}

# The modules of every plugin's package, and those of the verbs that a plugin may have. Others are free.
PLUGIN_MODULES = ("__init__", "__main__", "conf", "add")
VERB_MODULES = ("add", "delete", "check", "gc", "status", "repair")
# The template shows every file that a plugin may have.
TEMPLATE_MODULES = (*PLUGIN_MODULES, *VERB_MODULES, "plan", "properties")

# The modules that may use each library and each handle of the process. A folder stands for all its modules.
OWNERS = {
    "pyroute2": {"cni/kernel/message_classes.py"},
    "jeepney": {"cni/kernel/dbus.py"},
    "dns": {"cni/dns/server"},
    "subprocess": {"cni/kernel/child.py", "cni/testing"},
    "typer": {"cni/cli"},
    "rich": {"cni/cli"},
}
HANDLES = {
    "os.environ": {"cni/kernel/child.py"},
    "os.getenv": set(),
    "sys.stdin": set(),
    "sys.stdout": set(),
    "sys.argv": set(),
    "sys.exit": set(),
}
ENTRIES = {"cni/skel.py", "cni/multicall.py", "cni/program/entry.py", "cni/warm", "cni/cli", "cni/testing"}


# Names of parameters and fields that do not name the content.
VAGUE_NAMES = {"told", "found", "kept", "made", "what"}


class Import(NamedTuple):
    """One imported module, "cni.kernel.rtnetlink"; of `from cni import conf` too."""

    module: str
    line: int
    for_types: bool
    in_function: bool


@dataclass(frozen=True, eq=False)
class Source:
    """A file of the tree: its path from the root and its text, parsed."""

    path: PurePosixPath
    text: str
    tree: ast.Module

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All nodes of the tree."""
        return list(ast.walk(self.tree))

    @cached_property
    def imports(self) -> list[Import]:
        """All imports of the file, those in functions included."""
        found: list[Import] = []
        _collect(self.tree, found, for_types=False, in_function=False)
        return found

    @property
    def is_test(self) -> bool:
        """Return whether the file is a test, which may use any module."""
        return "tests" in self.path.parts or self.path.name == "conftest.py"

    @property
    def module(self) -> str:
        """Return the room within cni, "kernel" or "firewall"; "" for a file elsewhere."""
        return self.path.with_suffix("").parts[1] if self.path.parts[0] == "cni" else ""

    @property
    def package(self) -> str:
        """Return the plugin package of the file, "cni_bridge"; "" for a file elsewhere."""
        return next((part for part in self.path.parts if part.startswith("cni_")), "")


def parse(path: str, text: str) -> Source:
    """Parse a file. Raises SyntaxError."""
    return Source(PurePosixPath(path), text, ast.parse(text))


def read_tree(root: Path, folders: Iterable[str] = ("cni", "plugins", "build", "tests")) -> Iterator[Source]:
    """Parse the Python files of this project below `root`, one after another: all trees take 300 MB."""
    yield parse("conftest.py", (root / "conftest.py").read_text())
    for path in (path for name in folders for path in sorted((root / name).rglob("*.py"))):
        yield parse(str(path.relative_to(root)), path.read_text())


def _collect(node: ast.AST, imports: list[Import], *, for_types: bool, in_function: bool) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
        typing_only = for_types or (isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test))
        within = in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
        if isinstance(child, ast.Import):
            imports += [Import(alias.name, child.lineno, typing_only, within) for alias in child.names]
        elif isinstance(child, ast.ImportFrom) and child.module:
            # `from cni import conf` imports a module, `from cni.errors import Code` does not.
            of_package = child.module in {"cni", "cni.firewall"}
            names = (
                [f"{child.module}.{alias.name}" for alias in child.names] if of_package else [child.module]
            )
            imports += [Import(name, child.lineno, typing_only, within) for name in names]
        _collect(child, imports, for_types=typing_only, in_function=within)


def check_plugins_apart(source: Source) -> Iterator[str]:
    """Find imports of plugins by the library or by another plugin."""
    if source.is_test or source.path.parts[0] not in {"cni", "plugins"}:
        return
    for each in source.imports:
        top = each.module.split(".")[0]
        if top.startswith("cni_") and top != source.package:
            yield f"{source.path}:{each.line} imports the plugin {top}"


def check_layers(source: Source) -> Iterator[str]:
    """Find imports of a room that comes later in ROOMS, and modules that are in no room."""
    if source.is_test or source.path.parts[0] not in {"cni", "plugins"}:
        return
    if source.path.parts[0] == "cni" and source.module not in _LEVELS:
        yield f"{source.path} is in no room of build/layout.py"
        return
    for each in source.imports:
        parts = each.module.split(".")
        if parts[0] == "cni" and len(parts) > 1 and not each.for_types and not _may_import(source, parts[1]):
            yield f"{source.path}:{each.line} imports {each.module}, which is above it"


def _may_import(source: Source, room: str) -> bool:
    if source.path.name == "__main__.py":
        return room == "skel"
    if source.path.parts[0] == "plugins":
        return room in FOR_PLUGINS
    own, other = _LEVELS[source.module], _LEVELS.get(room, 0 if room == "__version__" else len(ROOMS))
    return other < own or room == source.module or own == other == 0


def check_pure(source: Source) -> Iterator[str]:
    """Find imports in conf.py or plan.py of modules that read or change the system."""
    is_part = bool(source.package) or source.module == "interface"
    if source.is_test or not is_part or source.path.name not in {"conf.py", "plan.py"}:
        return
    allowed = {"cni", *(f"cni.{name}" for name in PROTOCOL)}
    for each in source.imports:
        top = each.module.split(".")[0]
        if each.for_types or each.module in PURE:
            continue
        module = ".".join(each.module.split(".")[:2])
        if top in IMPURE or (top == "cni" and module not in allowed):
            yield f"{source.path}:{each.line} must be pure and imports {each.module}"


def check_order(source: Source) -> Iterator[str]:
    """Find imports in a plugin against the order conf, plan, all others.

    Nor may `__init__` import a verb, which is imported when it is called.
    """
    later = {*VERB_MODULES, "properties", "__init__"}
    after = {"__init__": {*VERB_MODULES}, "conf": {"plan", *later}, "plan": later}.get(source.path.stem)
    if source.is_test or not source.package or after is None:
        return
    for each in source.imports:
        package, _, module = each.module.partition(".")
        if package == source.package and (module or "__init__") in after and not each.for_types:
            yield f"{source.path}:{each.line} imports {each.module}, which comes after it"


def check_owners(source: Source) -> Iterator[str]:
    """Find imports of libraries outside of the modules that own them, and imports before they are needed."""
    if source.is_test or source.path.parts[0] not in {"cni", "plugins"}:
        return
    for each in source.imports:
        top = each.module.split(".")[0]
        if top not in OWNERS or each.for_types:
            continue
        if not _is_within(source.path, OWNERS[top]):
            yield f"{source.path}:{each.line} imports {top}, only {_names(OWNERS[top])} may"
        elif top == "pyroute2" and not each.in_function:
            yield f"{source.path}:{each.line} imports {top} before it is needed"


def check_handles(source: Source) -> Iterator[str]:
    """Find environment, standard streams and exit outside of ENTRIES. Others get them as arguments."""
    is_entry = source.path.name == "__main__.py" or _is_within(source.path, ENTRIES)
    if source.is_test or source.path.parts[0] not in {"cni", "plugins"} or is_entry:
        return
    for node in source.nodes:
        is_of_module = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        name = ast.unparse(node) if is_of_module else ""
        if name in HANDLES and not _is_within(source.path, HANDLES[name]):
            yield f"{source.path}:{getattr(node, 'lineno', 0)} uses {name}"


def check_size(source: Source) -> Iterator[str]:
    """Find files and functions that are too long."""
    lines = len(source.text.splitlines())
    if lines > MAX_FILE_LINES:
        yield f"{source.path} has {lines} lines, at most {MAX_FILE_LINES} are allowed"
    for node in source.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                yield f"{source.path}:{node.lineno} {node.name} has {length} lines, of {MAX_FUNCTION_LINES}"


def check_names(source: Source) -> Iterator[str]:
    """Find parameters and fields whose name does not name the content."""
    if source.is_test:
        return
    for node in source.nodes:
        names = [(node.arg, node.lineno)] if isinstance(node, ast.arg) else []
        if isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            names = [(ast.unparse(each.target), each.lineno) for each in fields]
        for name, line in names:
            if name in VAGUE_NAMES:
                yield f"{source.path}:{line} {name}: name the content"


def check_import_reasons(source: Source) -> Iterator[str]:
    """Find imports in functions without a reason: in the module's docstring, or beside or above the import.

    A module states the reason once by a docstring that speaks of imports.
    """
    if source.is_test or source.path.parts[0] not in {"cni", "plugins"}:
        return
    if re.search(r"\bimport", ast.get_docstring(source.tree) or "", re.IGNORECASE):
        return
    lines = source.text.splitlines()
    explained = 0
    for line in sorted({each.line for each in source.imports if each.in_function}):
        # A comment counts for the imports that follow it without another line between.
        if line - 1 != explained and "#" not in lines[line - 1] and "#" not in lines[line - 2]:
            yield f"{source.path}:{line} imports in a function without a reason"
        else:
            explained = line


def check_test_names(paths: Iterable[PurePosixPath]) -> Iterator[str]:
    """Find test files of equal names: mypy requires unique module names."""
    seen: dict[str, PurePosixPath] = {}
    for path in paths:
        if path.name.startswith("test_"):
            if path.name in seen:
                yield f"{path} has the name of {seen[path.name]}"
            seen[path.name] = path


def check_plugin_folder(folder: Path) -> Iterator[str]:
    """Find missing files of a plugin folder: declaration, page, package, tests."""
    package = f"cni_{folder.name.replace('-', '_')}"
    wanted = TEMPLATE_MODULES if folder.name == TEMPLATE else PLUGIN_MODULES
    modules = [f"{package}/{name}.py" for name in dict.fromkeys(wanted)]
    for name in ["plugin.toml", "README.md", *modules]:
        if not (folder / name).is_file():
            yield f"{folder.name}: {name} is missing"
    if not list(folder.glob("tests/test_*.py")):
        yield f"{folder.name}: there are no tests"


def check_text(path: PurePosixPath, text: str) -> Iterator[str]:
    """Find paths of one machine or person in a published text."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := re.search(r"(?<![\w}/.>])/(?:home|root|srv|work|Users)/\w+", line):
            yield f"{path}:{number} names {found.group()}"


SOURCE_RULES = (
    check_plugins_apart,
    check_layers,
    check_pure,
    check_order,
    check_owners,
    check_handles,
    check_size,
    check_names,
    check_import_reasons,
)


def _is_within(path: PurePosixPath, allowed: set[str]) -> bool:
    return any(str(path) == each or each in {str(parent) for parent in path.parents} for each in allowed)


def _names(allowed: set[str]) -> str:
    return " and ".join(sorted(allowed))
