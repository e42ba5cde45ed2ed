"""Create plugin executables: one small program, copied under each plugin's name.

Each copy is a file of its own. With hard links, a program that writes into one of them, as `cp` does, would
replace all plugins.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MARK = "# Part of pycni: "
# Names of temporary folders in a folder of executables begin so.
STAGE = ".pycni-"

# -I: no variable of the caller's environment and no folder of its own changes what is imported.
# -S: site-packages costs time and may have another version.
_PLUGIN = """\
#!{interpreter} -IS
# Part of pycni: a CNI plugin, its name says which; container runtimes run it.
import sys
sys.path[:0] = {paths!r}
from cni.multicall import main
main(__file__, {table!r})
"""

_COMMAND = """\
#!{interpreter} -IS
# Part of pycni: the command for people.
import sys
sys.path[:0] = {paths!r}
from cni.cli.start import main
main({bindir!r})
"""

_ENTRY = """\
#!{interpreter} -IS
# Part of pycni: all of the suite, started by a launcher.
import sys
sys.path[:0] = {paths!r}
from cni.program.entry import main
main({table!r}, {bindir!r})
"""

# Bytes behind each mark in build/launcher/launcher.c.
_LAUNCHER_ROOM = {b"@PYCNI-TREE@:": 256, b"@PYCNI-BELOW@:": 256, b"@PYCNI-BUILD@:": 32}


def plugin_script(paths: Sequence[str], table_file: str, interpreter: str | None = None) -> str:
    """Return the text of a plugin's script: it imports from `paths` and the standard library only.

    `table_file` is JSON, plugin name to package name. `interpreter` is absolute; None means the one
    that runs this code, or the one that its virtual environment was created from.
    """
    return _PLUGIN.format(interpreter=interpreter or _own_interpreter(), paths=list(paths), table=table_file)


def command_script(paths: Sequence[str], bindir: str, interpreter: str | None = None) -> str:
    """Return the text of the `pycni` command: it imports from `paths` and finds plugins in `bindir`."""
    return _COMMAND.format(interpreter=interpreter or _own_interpreter(), paths=list(paths), bindir=bindir)


def entry_script(paths: Sequence[str], table_file: str, bindir: str, interpreter: str | None = None) -> str:
    """Return the text of the program that a launcher executes, for a call or as the warm server."""
    interpreter = interpreter or _own_interpreter()
    return _ENTRY.format(interpreter=interpreter, paths=list(paths), table=table_file, bindir=bindir)


def launcher(compiled: bytes, tree: str, build: str, below: str = "") -> bytes:
    """Return the launcher with its tree and build written into the places that its source keeps for them.

    `tree` is the absolute path of the folder whose program `pycni` it executes. `below` is the tree's path
    relative to the folder of the launcher itself, which comes first: a copy of that folder works anywhere.
    Raise ValueError if a string does not fit.
    """
    for mark, text in ((b"@PYCNI-TREE@:", tree), (b"@PYCNI-BELOW@:", below), (b"@PYCNI-BUILD@:", build)):
        start = compiled.index(mark) + len(mark)
        end = start + _LAUNCHER_ROOM[mark]
        if len(os.fsencode(text)) >= _LAUNCHER_ROOM[mark]:
            raise ValueError(f"{text} is too long for the launcher")
        compiled = compiled[:start] + os.fsencode(text).ljust(end - start, b"\0") + compiled[end:]
    return compiled


def launched_tree(program: bytes) -> str:
    """Return the absolute tree that `launcher` wrote into a program, "" for any other program."""
    return _written(program, b"@PYCNI-TREE@:")


def launched_below(program: bytes) -> str:
    """Return the tree relative to the launcher's folder that `launcher` wrote into a program, "" for none."""
    return _written(program, b"@PYCNI-BELOW@:")


def _written(program: bytes, mark: bytes) -> str:
    _, found, after = program.partition(mark)
    return os.fsdecode(after[: _LAUNCHER_ROOM[mark]].split(b"\0")[0]) if found else ""


def _own_interpreter() -> str:
    return os.path.realpath(sys.executable)


def put(bindir: Path, names: Iterable[str], program: str | bytes) -> None:
    """Place the program under each name by a rename: a call finds the old file or the new one, whole.

    Raise OSError.
    """
    with staged(bindir, names, program) as files:
        for file in files:
            file.rename(bindir / file.name)


@contextmanager
def staged(bindir: Path, names: Iterable[str], program: str | bytes) -> Iterator[list[Path]]:
    """Yield files with the program, one for each name, in a temporary folder in `bindir`. Raise OSError."""
    with tempfile.TemporaryDirectory(prefix=STAGE, dir=bindir) as folder:
        files = [Path(folder) / name for name in names]
        for path in files:
            with path.open("wb") as file:
                file.write(program if isinstance(program, bytes) else program.encode())
                file.flush()
                # A power cut could leave an empty file under the name otherwise.
                os.fsync(file.fileno())
            path.chmod(0o755)
        yield files
