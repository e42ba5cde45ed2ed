"""Output of `pycni`: results on stdout, one line for an error on stderr, colours on terminals only."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cni.cli.rights import require_root
from cni.errors import CniError, Code
from cni.log import note

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.console import Console

    from cni.runtime.conflists import Broken

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
_WIDE = 250

JsonOutput = Annotated[bool, typer.Option("--json", help="Print JSON, also for errors.")]


class FailedError(Exception):
    """The call failed and the error has been reported; the process exits with `status`."""

    def __init__(self, status: int = FAILED) -> None:
        super().__init__(status)
        self.status = status


@contextmanager
def reporting_errors(*, as_json: bool, root_for: str = "") -> Iterator[None]:
    """Report any error in the block as one line or as a CNI error object on stdout; raise FailedError then.

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
        _report(error, as_json=as_json)
        raise FailedError from error
    except OSError as error:
        if error.filename is not None or isinstance(error, PermissionError):
            _report(_refused(error), as_json=as_json)
            raise FailedError from error
        # Errors of files have a file name, so this is a write to stdout.
        stop_writing()
        print_error(CniError(Code.IO_FAILURE, f"cannot write to stdout: {error.strerror}"))
        raise FailedError from error
    except Exception as error:  # the user gets one line for any error
        # Typer's exceptions for wrong usage have no public name.
        if hasattr(error, "format_message"):
            raise
        _report(_unexpected(error), as_json=as_json)
        raise FailedError from error


def print_error(error: CniError) -> None:
    """Print an error to stderr as one line; on a terminal its details are dim."""
    hint = printable(error.details)
    if hint:
        dim, plain = ("\x1b[2m", "\x1b[0m") if _has_colour() else ("", "")
        hint = f" {dim}({hint}){plain}"
    note(f"pycni: {printable(error.msg)}{hint}")


def warn(network: str, text: str) -> None:
    """Print a warning about a network to stderr."""
    note(f'pycni: warning: network "{printable(network)}": {printable(text)}')


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    write(json.dumps(value, indent=4, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Write UTF-8 to stdout, whatever the locale's encoding is."""
    sys.stdout.buffer.write(text.encode(errors="replace"))
    sys.stdout.buffer.flush()


def show_units(units: Mapping[str, str], folder: Path, into: str, *, as_json: bool) -> None:
    """Print systemd units, which belong into `folder`; write them into the folder `into` if one is given."""
    if into:
        # Other calls need no locks and no files.
        from cni.state.files import write_atomic

        for name, text in units.items():
            write_atomic(Path(into) / name, text.encode(), mode=0o644)
    elif as_json:
        print_json(units)
    else:
        write("\n".join(f"# {folder / name}\n{text}" for name, text in units.items()))


def show_broken(files: Iterable[Broken]) -> list[dict[str, Any]]:
    """Return the JSON of invalid files."""
    return [{"file": each.file, "error": each.error.to_dict()} for each in files]


def console() -> Console:
    """Return rich's console for stdout. If stdout is not a terminal, lines are not folded."""
    # Imported here: rich takes 40 ms, and results and errors need none of it.
    from rich.console import Console

    return Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else _WIDE)


def printable(text: str) -> str:
    """Return a text as one line without control characters."""
    return "".join(char if char.isprintable() else " " for char in text).strip()


def _report(error: CniError, *, as_json: bool) -> None:
    if not as_json:
        print_error(error)
        return
    try:
        print_json(error.to_dict())
    except OSError:
        stop_writing()
        print_error(error)


def _unexpected(error: Exception) -> CniError:
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "an unknown place"
    return CniError(
        Code.INTERNAL, f"unexpected {type(error).__name__}: {error}", f"Report this bug of pycni, at {place}."
    )


def _refused(error: OSError) -> CniError:
    """Return the error for a failed access to a file or a process."""
    path = f"{error.filename}: " if error.filename is not None else ""
    hint = "Run as root." if isinstance(error, PermissionError) else ""
    return CniError(Code.IO_FAILURE, f"{path}{error.strerror}", hint)


def verb_group(about: str) -> typer.Typer:
    """Return a group of verbs, such as `pycni warm`."""
    return typer.Typer(callback=_require_verb, invoke_without_command=True, rich_markup_mode=None, help=about)


def _require_verb(context: typer.Context) -> None:
    """Fail with wrong usage that lists the verbs, if a group of verbs is called without one."""
    if context.invoked_subcommand is None:
        command: Any = context.command
        context.fail(f'a verb is missing after "{context.info_name}": {", ".join(command.commands)}')


def _has_colour() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")


def stop_writing() -> None:
    """Redirect stdout to /dev/null, so that the interpreter does not fail to flush it on exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
