"""`pycni new-plugin`: write a plugin folder to start from.

The template is a plugin of the source tree. The new plugin is a copy of it under another name, so that all
checks and tests pass until the author changes them.
"""

from __future__ import annotations

import re
import shutil
import tomllib
from typing import TYPE_CHECKING

from cni.cli.output import printable, write
from cni.errors import CniError, Code

if TYPE_CHECKING:
    from pathlib import Path

# The plugin that has every file that a plugin may have.
TEMPLATE = "loopback"

# Each file name of a plugin becomes part of a module's name.
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
# BINDIR/pycni is the folder of the installed suite. The layout's rules do not apply below a folder "tests".
_RESERVED = ("pycni", "tests")
# The longest file name is that of the tests, 11 bytes longer than the plugin's; Linux takes 255.
_NAME_BYTES = 200


def run(name: str, folder: Path) -> None:
    """Write the plugin `name` into `folder` and print where. Raises CniError 7 or 105."""
    if not _NAME.fullmatch(name) or name in _RESERVED or len(name) > _NAME_BYTES:
        raise CniError(
            Code.INVALID_CONFIG,
            f'"{printable(name)}" cannot be the name of a plugin',
            f"Use at most {_NAME_BYTES} lower-case letters, digits and single hyphens, and begin with a "
            f"letter; {' and '.join(_RESERVED)} are reserved.",
        )
    template, target = folder / TEMPLATE, folder / name
    if not (template / "plugin.toml").is_file():
        raise CniError(
            Code.INVALID_CONFIG,
            f'there is no template of a plugin in "{printable(str(folder))}"',
            'Run it in the source tree of pycni, or name its folder "plugins" as FOLDER.',
        )
    taken = [tomllib.loads(path.read_text())["names"] for path in folder.glob("*/plugin.toml")]
    if target.exists() or any(name in names for names in taken):
        raise CniError(Code.ALREADY_EXISTS, f'there is a plugin "{name}" already', "Choose another name.")
    try:
        _copy(template, target)
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        raise
    write(f"{target}\n")


def _copy(template: Path, target: Path) -> None:
    for source in sorted(template.rglob("*")):
        if source.is_file() and "__pycache__" not in source.parts:
            path = target / _rename(str(source.relative_to(template)), target.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_rename(source.read_text(), target.name))


def _rename(text: str, new: str) -> str:
    """Replace the name of the template where it names the plugin: package, model, file names, "type", title.

    The word alone may be about what the template does, and stays.
    """
    old = TEMPLATE
    for pattern, replacement in (
        (rf"\bcni_{_module(old)}\b", f"cni_{_module(new)}"),
        (rf"\btest_{_module(old)}_", f"test_{_module(new)}_"),
        (rf"\b{_title(old)}Conf\b", f"{_title(new)}Conf"),
        (rf'"{old}"', f'"{new}"'),
        (rf"(?m)^# {old}$", f"# {new}"),
        (rf"\bThe {old} plugin\b", f"The {new} plugin"),
    ):
        text = re.sub(pattern, replacement, text)
    return text


def _module(name: str) -> str:
    return name.replace("-", "_")


def _title(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("-"))
