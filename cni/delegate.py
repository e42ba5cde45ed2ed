"""Run another plugin, as an interface plugin does with its IPAM (CNI spec 1.1.0, section 4)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cni.errors import CniError, Code
from cni.log import flush, note
from cni.request import ANY_VERSION, Request, Verb

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cni.operations.garbage import Stale
    from cni.operations.repair import Repaired
    from cni.result import Result


class NothingDoneError(CniError):
    """The plugin is not there, or has refused by an error object: nothing of its work is left.

    Any other error of a call, such as a time-out or a stop, may leave a part of it or all.
    """


def find(type_: str, path: Sequence[str]) -> Path:
    """Give the executable of a plugin: the first regular file of that name.

    Raises NothingDoneError with code 7 or 4.
    """
    if not type_:
        raise NothingDoneError(
            Code.INVALID_CONFIG, "no plugin name provided", 'the key "type" is missing or empty'
        )
    if "/" in type_ or type_ in {".", ".."}:
        raise NothingDoneError(
            Code.INVALID_CONFIG, f"invalid plugin name: {type_}", "it is a file's name, not a path"
        )
    if not path:
        raise NothingDoneError(
            Code.INVALID_ENVIRONMENT, "no paths provided", "CNI_PATH names the folders of plugins"
        )
    for folder in path:
        candidate = f"{folder}/{type_}"
        # Not pathlib's, which fails where nothing can be told of a path.
        if os.path.isfile(candidate):  # noqa: PTH113
            return Path(candidate)
    raise NothingDoneError(
        Code.INVALID_CONFIG,
        f'failed to find plugin "{type_}" in path [{" ".join(path)}]',
        _near_misses(type_, path) or "install it there or correct CNI_PATH",
    )


def _near_misses(type_: str, path: Sequence[str]) -> str:
    missing = [folder for folder in path if not os.path.isdir(folder)]  # noqa: PTH112 - as above
    alike = [
        str(each)
        for folder in path
        if folder not in missing
        for each in _listed(Path(folder))
        if each.name.lower().replace("_", "-") == type_.lower().replace("_", "-")
    ]
    told = [f"no such folder: {each}" for each in missing] + [f"there is {each}" for each in alike]
    return "; ".join(told)


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        # One that may only be gone through, or that has just been removed: it has no hint for us.
        return []


def add(type_: str, request: Request) -> Result:
    """Let the plugin ADD and give its result. Raises its error object as it is, as a NothingDoneError."""
    from cni.conf import decode_object
    from cni.convert import parse_result

    answer = decode_object(_call(Verb.ADD, type_, request) or b"{}", f"the result of plugin {type_}")
    return parse_result(answer, request.version, f"result of {type_}")


def delete(type_: str, request: Request) -> None:
    """Let the plugin DEL."""
    _call(Verb.DEL, type_, request)


def check(type_: str, request: Request) -> None:
    """Let the plugin CHECK."""
    _follow(Verb.CHECK, type_, request)


def gc(type_: str, request: Request) -> None:
    """Let the plugin GC."""
    _follow(Verb.GC, type_, request)


def status(type_: str, request: Request) -> None:
    """Let the plugin answer STATUS."""
    _follow(Verb.STATUS, type_, request)


def _follow(verb: Verb, type_: str, request: Request) -> None:
    """Call a verb of the spec, or this suite's command for it where the caller was called by that.

    A plugin of another suite refuses the latter. That is logged and is no error.
    """
    from cni.operations.garbage import is_own_answer, is_refusal, refusal_text

    own = ANY_VERSION[verb]
    if request.verb is not own:
        _call(verb, type_, request)
        return
    try:
        answer = _call(own, type_, request)
    except CniError as error:
        if not is_refusal(error):
            raise
        answer = b""
    if not is_own_answer(answer):
        note(f"pycni: {refusal_text(type_, verb, request.version)}")


def plan_gc(type_: str, request: Request) -> list[Stale]:
    """Let the plugin tell what its GC would remove; nothing is known of one that is not of this suite."""
    from cni.operations import garbage

    told = _ask(Verb.GC_PLAN, type_, request)
    return [garbage.parse(each) for each in told.get("stale") or [] if isinstance(each, dict)]


def repair(type_: str, request: Request) -> Repaired:
    """Let the plugin make again what it misses; one that is not of this suite does nothing."""
    from cni.operations import repair as repairs

    return repairs.parse(_ask(Verb.REPAIR, type_, request))


def _ask(verb: Verb, type_: str, request: Request) -> dict[str, Any]:
    """Call a verb of ours and give the answer, {} when the plugin does not know the verb."""
    from cni.conf import decode_object
    from cni.operations.garbage import is_refusal

    try:
        return decode_object(_call(verb, type_, request), f"the answer of plugin {type_}")
    except CniError as error:
        if not is_refusal(error):
            raise
        if verb is Verb.GC_PLAN:
            note(f"pycni: plugin {type_} cannot tell what its GC would remove")
        return {}


def _call(verb: Verb, type_: str, request: Request) -> bytes:
    executable = find(type_, request.path)
    env = dict(request.env) | {"CNI_COMMAND": str(verb)}
    runner = request.run_delegate or run_executable
    status_, stdout = runner(executable, env, request.stdin)
    if status_ != 0:
        raise error_of(type_, status_, stdout)
    return stdout


def run_executable(executable: Path, env: Mapping[str, str], stdin: bytes) -> tuple[int, bytes]:
    """Run a plugin as a process of its own; its stderr goes to ours."""
    from cni.kernel.child import run

    flush()
    done = run([str(executable)], stdin, env=env, timeout_s=300, pass_stderr=True)
    return done.status, done.stdout


def error_of(type_: str, status_: int, stdout: bytes) -> CniError:
    """Give the error that a failed plugin printed as NothingDoneError: code, message and details as they are.

    Where it has printed none, that is told by a plain CniError 999.
    """
    try:
        told: Any = json.loads(stdout)
        return NothingDoneError(int(told["code"]), str(told["msg"]), str(told.get("details", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        how = f"signal {-status_}" if status_ < 0 else f"exit status {status_}"
        said = stdout.decode(errors="replace").strip()
        return CniError(
            Code.INTERNAL,
            f"plugin {type_} failed with {how} and no error object",
            f"it printed: {said[:200]}" if said else "it printed nothing; its stderr may tell more",
        )
