"""Helpers that run from an installation: replaced by those of a new one, and stopped with the suite."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import CniError
from cni.kernel.child import run
from cni.service import control
from install_tree import InstallError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.service.control import Running
    from install_tree import Prefix

_MOST_LISTED = 10
_TIMEOUT_S = 30


def replace(prefix: Prefix) -> Iterator[str]:
    """Let the new installation's helpers take over from those of its earlier builds. Yield lines to print.

    A failure is only reported: the next ADD or CHECK does it as well.
    """
    command = prefix.shown_path / "bin/pycni"
    for name in sorted({each.name for each in control.find() if _runs_from(each, prefix)}):
        try:
            done = run([str(command), "helper", "start", name], timeout_s=_TIMEOUT_S)
        except CniError as error:
            yield f"helper of {name}: still of the earlier build: {error}"
            continue
        result = (
            "is of this build" if not done.status else f"still of the earlier build: {done.stderr.strip()}"
        )
        yield f"helper of {name}: {result}"


def stop(prefix: Prefix) -> Iterator[str]:
    """Stop the helpers of an installation, and say what nothing attends to any more. Raises InstallError."""
    for each in control.find():
        if not _runs_from(each, prefix):
            continue
        held = control.report(each).get("holds", [])
        try:
            control.stop([each])
        except CniError as error:
            raise InstallError(f"{error}. Kill it, and uninstall again") from error
        yield f"helper of {each.name}: ended"
        if held:
            more = f" and {len(held) - _MOST_LISTED} more" if len(held) > _MOST_LISTED else ""
            yield f"no process renews or serves any more: {', '.join(held[:_MOST_LISTED])}{more}"


def _runs_from(running: Running, prefix: Prefix) -> bool:
    """Return whether a helper's interpreter is below the prefix, in whatever build."""
    try:
        return Path(f"/proc/{running.pid}/exe").readlink().is_relative_to(prefix.path)
    except OSError:
        return False
