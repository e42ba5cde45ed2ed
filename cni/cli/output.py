"""How `pycni` speaks: results on stdout, one line for an error on stderr, colour on terminals only."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer  # noqa: TC002 - Typer reads the annotation

from cni.cli.rights import require_root
from cni.errors import CniError, Code
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rich.console import Console

    from cni.runtime.conflists import Broken

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
_WIDE = 250


class FailedError(Exception):
    """The call failed and that has been told; the process ends with `FAILED`."""


@contextmanager
def answering(*, as_json: bool, root_for: str = "") -> Iterator[None]:
    """Report any error inside in one line, or as a CNI error object on stdout, and end the call with it.

    `root_for` names the command if it needs root's rights.
    """
    try:
        if root_for:
            require_root(root_for)
        yield
        sys.stdout.flush()
    except FailedError:
        raise
    except BrokenPipeError as error:
        stop_writing()
        raise FailedError from error
    except CniError as error:
        _tell(error, as_json=as_json)
        raise FailedError from error
    except OSError as error:
        if error.filename is not None or isinstance(error, PermissionError):
            _tell(_refused(error), as_json=as_json)
            raise FailedError from error
        # Accesses to files name them: this one is ours to stdout.
        stop_writing()
        tell_error(CniError(Code.IO_FAILURE, f"could not print: {error.strerror}"))
        raise FailedError from error
    except Exception as error:  # the user gets one line whatever happens
        # What Typer raises for wrong usage has no public name.
        if hasattr(error, "format_message"):
            raise
        _tell(_unexpected(error), as_json=as_json)
        raise FailedError from error


def tell_error(error: CniError) -> None:
    """Write an error to stderr in one line; the hint is dim on a terminal."""
    hint = printable(error.details)
    if hint:
        dim, plain = ("\x1b[2m", "\x1b[0m") if _has_colour() else ("", "")
        hint = f" {dim}({hint}){plain}"
    note(f"pycni: {printable(error.msg)}{hint}")


def warn(network: str, text: str) -> None:
    """Write to stderr what looks wrong in a network."""
    note(f'pycni: warning: network "{printable(network)}": {printable(text)}')


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    write(json.dumps(value, indent=4, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Write to stdout, whatever characters its encoding lacks."""
    sys.stdout.buffer.write(text.encode(errors="replace"))
    sys.stdout.buffer.flush()


def show_broken(files: Iterable[Broken]) -> list[dict[str, Any]]:
    """Give the JSON of files that are no networks."""
    return [{"file": each.file, "error": each.error.to_dict()} for each in files]


def console() -> Console:
    """Give rich's console for stdout; lines are not folded where there is no terminal to fit into."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE)


def printable(text: str) -> str:
    """Give a text in one line and without anything that a terminal would act upon."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _tell(error: CniError, *, as_json: bool) -> None:
    if not as_json:
        tell_error(error)
        return
    try:
        print_json(error.to_dict())
    except OSError:
        stop_writing()
        tell_error(error)


def _unexpected(error: Exception) -> CniError:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
    return CniError(
        Code.INTERNAL, f"unexpected {type(error).__name__}: {error}", f"a fault of pycni, at {place}"
    )


def _refused(error: OSError) -> CniError:
    """Return the error for a file or a process that the caller may not touch, or that is not as expected."""
    where = f"{error.filename}: " if error.filename is not None else ""
    hint = "run as root" if isinstance(error, PermissionError) else ""
    return CniError(Code.IO_FAILURE, f"{where}{error.strerror}", hint)


def require_verb(context: typer.Context) -> None:
    """Fail with wrong usage, naming the verbs, where a group of verbs is called without one."""
    if context.invoked_subcommand is None:
        command: Any = context.command
        context.fail(f'a verb is missing after "{context.info_name}": {", ".join(command.commands)}')


def _has_colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def stop_writing() -> None:
    """Keep the interpreter from complaining at its end that nobody reads stdout any more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
