"""Run another plugin, as an interface plugin does with its IPAM plugin (CNI spec 1.1.0, section 4).

Every process imports this module. Functions import what only some calls need, as a cold start pays for each
module.
"""

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
    """The plugin is not installed, or has refused with an error object: nothing of its work remains.

    After any other error of a call, such as a time-out or a signal, some of its work may remain.
    """


def find(type_: str, path: Sequence[str]) -> Path:
    """Return the executable of a plugin: the first regular file of that name in `path`.

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
        # pathlib's is_file raises for a path that cannot be read.
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
    return "; ".join([f"no such folder: {each}" for each in missing] + [f"there is {each}" for each in alike])


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        # The folder cannot be listed, or has just been removed.
        return []


def add(type_: str, request: Request) -> Result:
    """Call ADD of the plugin and return its result. Raises its error object as a NothingDoneError."""
    from cni.conf import decode_object
    from cni.convert import parse_result

    answer = decode_object(_call(Verb.ADD, type_, request) or b"{}", f"the result of plugin {type_}")
    return parse_result(answer, request.version, f"result of {type_}")


def delete(type_: str, request: Request) -> None:
    """Call DEL of the plugin."""
    _call(Verb.DEL, type_, request)


def check(type_: str, request: Request) -> None:
    """Call CHECK of the plugin."""
    _follow(Verb.CHECK, type_, request)


def gc(type_: str, request: Request) -> None:
    """Call GC of the plugin."""
    _follow(Verb.GC, type_, request)


def status(type_: str, request: Request) -> None:
    """Call STATUS of the plugin."""
    _follow(Verb.STATUS, type_, request)


def _follow(verb: Verb, type_: str, request: Request) -> None:
    """Call a verb of the spec, or this suite's command for it if the caller was called with that.

    A plugin of another suite refuses the command. That is logged and is no error.
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
    """Return what GC of the plugin would remove; nothing for a plugin of another suite."""
    from cni.operations import garbage

    answer = _ask(Verb.GC_PLAN, type_, request)
    return [garbage.parse(each) for each in answer.get("stale") or [] if isinstance(each, dict)]


def repair(type_: str, request: Request) -> Repaired:
    """Call repair of the plugin and return what it did; a plugin of another suite does nothing."""
    from cni.operations import repair as repairs

    return repairs.parse(_ask(Verb.REPAIR, type_, request))


def _ask(verb: Verb, type_: str, request: Request) -> dict[str, Any]:
    """Call a verb of this suite and return the answer, {} if the plugin does not know the verb."""
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
    """Run a plugin as a process of its own, with our stderr."""
    from cni.kernel.child import run

    flush()
    done = run([str(executable)], stdin, env=env, timeout_s=300, pass_stderr=True)
    return done.status, done.stdout


def error_of(type_: str, status_: int, stdout: bytes) -> CniError:
    """Return the error object that a failed plugin printed as NothingDoneError, with its code and texts.

    If the plugin has printed none, return a plain CniError 999 that says so.
    """
    try:
        error: Any = json.loads(stdout)
        return NothingDoneError(int(error["code"]), str(error["msg"]), str(error.get("details", "")))
    except (ValueError, KeyError, TypeError, AttributeError):
        how = f"signal {-status_}" if status_ < 0 else f"exit status {status_}"
        said = stdout.decode(errors="replace").strip()
        return CniError(
            Code.INTERNAL,
            f"plugin {type_} failed with {how} and no error object",
            f"it printed: {said[:200]}" if said else "it printed nothing; its stderr may tell more",
        )
