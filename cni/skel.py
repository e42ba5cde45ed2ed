"""One call of a plugin: environment and stdin in, one JSON document out (CNI spec 1.1.0, section 2).

Every exception ends here, and one document is printed. `run` gets environment and streams as arguments;
`main` is the process around it.

Functions import what VERSION does not need: a cold start pays for each module. `cni.conf` imports pydantic,
which must not happen before `keep_pydantic_alone`.
"""

from __future__ import annotations

import gc
import os
import sys
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from cni import __version__, stops, streams, versions
from cni.errors import CniError, Code, ErrorList, of_system
from cni.faults import point
from cni.log import note
from cni.request import (
    ANY_VERSION,
    ATTACHMENT_VERBS,
    GC_VERBS,
    OWN_VERBS,
    Attachment,
    Request,
    Verb,
    check_name,
    from_env,
    unknown_verb,
)
from cni.undo import Undo

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from cni.conf import Unread
    from cni.operations.garbage import Stale
    from cni.plugin import Plugin
    from cni.request import DelegateRunner

    Load = Callable[[], Plugin[Any]]
    Function = Callable[..., Any]

# The release of the Go plugins that this suite replaces. Programs parse it from the about text.
REFERENCE_LEVEL = "v1.9.1"

# The module that has a verb, in the package of a plugin.
_MODULES = {
    Verb.ADD: "add",
    Verb.DEL: "delete",
    Verb.CHECK: "check",
    Verb.GC: "gc",
    Verb.STATUS: "status",
    Verb.GC_PLAN: "gc",
    Verb.REPAIR: "repair",
}
_MODULES |= {own: _MODULES[verb] for verb, own in ANY_VERSION.items()}


def main(load: Load, run_delegate: DelegateRunner | None = None) -> NoReturn:
    """Run one call as the plugin's process, and exit with 0 for success or 1 for an error object."""
    stops.listen()
    keep_pydantic_alone()
    # A call ends before a collection would save anything.
    gc.disable()
    status = 1
    try:
        stdin, stdout = (stream.buffer if stream else _closed() for stream in (sys.stdin, sys.stdout))
        status = run(load, dict(os.environ), stdin, stdout, run_delegate)
    except CniError:
        # The signal came after the answer.
        note("pycni: stopped after the answer")
    # The answer is written. To destroy modules and objects one by one takes another 10 ms.
    os._exit(status)


def keep_pydantic_alone() -> None:
    """Keep pydantic from searching all packages for its plugins, which takes 15 ms of a start."""
    loader = ModuleType("pydantic.plugin._loader")
    vars(loader)["get_plugins"] = tuple
    sys.modules.setdefault(loader.__name__, loader)


def _closed() -> BinaryIO:
    """Return a replacement for a stream that the caller has closed. Reads are empty, writes fail."""
    return open(os.devnull, "rb", buffering=0)  # noqa: PTH123 - open until the process ends


def run(
    load: Load,
    env: Mapping[str, str],
    stdin: BinaryIO,
    stdout: BinaryIO,
    run_delegate: DelegateRunner | None = None,
) -> int:
    """Run one verb and return the exit status. `load` returns the plugin; its errors are answered as well."""
    call = _Call(stdout)
    try:
        plugin = load()
        if not env.get("CNI_COMMAND"):
            _print_about(plugin)
            return 0
        request = from_env(env, run_delegate)
        call.answer(plugin, request, stdin)
    except CniError as error:
        return call.fail(error)
    except (OSError, MemoryError) as error:
        return call.fail(of_system(error, _place(error)))
    except Exception as error:  # noqa: BLE001 - the runtime gets an error object whatever happens
        details = f"this is a fault of the plugin, at {_place(error)}"
        return call.fail(CniError(Code.INTERNAL, f"unexpected {type(error).__name__}: {error}", details))
    return 0


def _print_about(plugin: Plugin[Any]) -> None:
    note(f"CNI {plugin.name} plugin {REFERENCE_LEVEL}+pycni.{__version__}")
    note(f"CNI protocol versions supported: {', '.join(plugin.versions)}")


def _place(error: Exception) -> str:
    """Return the line that raised, for a bug report without a traceback."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None:
        return "an unknown place"
    return f"{os.path.basename(trace.tb_frame.f_code.co_filename)}:{trace.tb_lineno}"  # noqa: PTH119 - text only


class _Call:
    """The answer of one call, in the configuration's version once that is known."""

    def __init__(self, stdout: BinaryIO) -> None:
        self._stdout = stdout
        self._version = versions.CURRENT
        self._has_answered = False
        self._is_done = False

    def answer(self, plugin: Plugin[Any], request: Request, stdin: BinaryIO) -> None:
        if request.verb is Verb.VERSION:
            self._write(versions.supported_text(plugin.versions, versions.CURRENT))
            return
        from cni.conf import NetConf, parse

        text = streams.read_all(stdin)
        given = parse(text)
        document = given.document
        self._version = _check_identity(document)
        versions.require_verb(request.verb, self._version, plugin.versions)
        versions.require(self._version, plugin.versions)
        if request.verb is Verb.CALLS:
            self._answer_calls(plugin, request, document)
            return
        request = _without_own_netns(request)
        if request.verb is Verb.LINT:
            given.read(plugin.conf)
            self._lint(given.list_unread(plugin.conf, plugin.name))
            return
        run_verb = plugin.find(_MODULES[request.verb])
        # A verb that the plugin does not have changes nothing and leaves nothing behind: neither the model
        # nor prevResult is read. A verb that does something refuses a malformed prevResult, DEL too. The spec
        # lets DEL succeed when resources or prevResult are missing, and has codes 6 and 7 for content that a
        # plugin cannot read. Ignoring it would report success for a link that only prevResult names.
        reading = given.read_for_delete if request.verb is Verb.DEL else given.read
        conf = reading(plugin.conf if run_verb else NetConf)
        if request.verb is Verb.ADD and (unread := given.list_unread(plugin.conf, plugin.name)):
            _warn_of_keys(plugin.name, document, unread)
        if run_verb or request.verb in GC_VERBS:
            request = _with_document(request, document, self._version, text)
        if request.verb is Verb.ADD:
            self._add(_require(run_verb, request.verb), conf, request)
        elif request.verb in OWN_VERBS:
            self._run_own(plugin, run_verb, conf, request)
        else:
            _run(plugin, run_verb, conf, request)

    def _lint(self, unread: tuple[Unread, ...]) -> None:
        """Answer which keys look misspelt; the configuration has been validated already."""
        from cni.convert import dumps
        from cni.misspelt import explain

        self._write(dumps({"warnings": explain(unread)}))

    def _answer_calls(self, plugin: Plugin[Any], request: Request, document: dict[str, Any]) -> None:
        from cni.convert import dumps
        from cni.operations import calls

        run_one = partial(run, lambda: plugin, run_delegate=request.run_delegate)
        self._write(dumps(calls.answer(run_one, request.env, document)))

    def _add(self, add: Function, conf: Any, request: Request) -> None:
        from cni.convert import dumps, show_result

        # The answer is written before the undo steps are dropped: an ADD without an answer must not remain.
        with Undo() as undo:
            result = add(conf, request, undo)
            text = dumps(show_result(result, self._version))
            if stopped := stops.requested():
                raise stopped
            self._write(text)
            undo.cancel()
            self._is_done = True
            point("answer.written")

    def _run_own(self, plugin: Plugin[Any], run_verb: Function | None, conf: Any, request: Request) -> None:
        """Answer a verb that is not in the spec. Raise CniError 4 for one that the plugin does not have."""
        from cni.convert import dumps

        if request.verb is Verb.GC_PLAN:
            shown: dict[str, Any] = {
                "stale": [each.to_dict() for each in _plan_gc(plugin, run_verb, conf, request)]
            }
        elif request.verb is Verb.REPAIR:
            shown = _require(run_verb, request.verb)(conf, request).to_dict()
        else:
            _run(plugin, run_verb, conf, request)
            # This document tells the caller that the plugin is of this suite.
            shown = {"pycni": __version__}
        self._write(dumps(shown))

    def fail(self, error: CniError) -> int:
        if self._is_done:
            # The signal came after the answer.
            return 0
        if not self._has_answered:
            from cni.convert import dumps

            try:
                self._write(dumps(error.to_dict(self._version)))
            except CniError as unheard:
                note(f"pycni: {unheard}; the error was: {error}")
        return 1

    def _write(self, text: bytes) -> None:
        """Write the document of this call completely. Raises CniError 5 if that fails."""
        # A signal that arrives here is answered: nothing has been written yet.
        streams.begin_answer(self._stdout)
        self._has_answered = True
        try:
            streams.write_all(self._stdout, text)
        except OSError as error:
            raise CniError(Code.IO_FAILURE, f"could not write the answer: {error.strerror}") from error


def _require(run_verb: Function | None, verb: Verb) -> Function:
    """Return the function of a verb. Raise CniError 4 if the plugin does not have it."""
    if run_verb is None:
        raise unknown_verb(verb)
    return run_verb


def _run(plugin: Plugin[Any], run_verb: Function | None, conf: Any, request: Request) -> None:
    """Run a verb that prints nothing; one that the plugin does not have succeeds."""
    if request.verb in GC_VERBS:
        _collect(plugin, run_verb, conf, request)
    elif run_verb:
        run_verb(conf, request)


def _collect(plugin: Plugin[Any], finders: Function | None, conf: Any, request: Request) -> None:
    """Remove what the finders of a plugin find, then let its IPAM plugin GC.

    Without a list of valid attachments everything may be in use, and nothing is removed.
    """
    errors = ErrorList()
    if finders and request.valid_attachments is not None:
        from cni.operations import garbage

        errors.attempt(garbage.collect, plugin.name, finders(conf, request))
    elif finders and (plugin.calls_ipam or not conf.ipam.type):
        # An IPAM plugin is silent: its caller has logged it.
        note(f"{plugin.name}: gc was given no list of valid attachments, nothing is removed")
    if plugin.calls_ipam and conf.ipam.type:
        from cni import delegate

        errors.attempt(delegate.gc, conf.ipam.type, request)
    errors.raise_any()


def _plan_gc(plugin: Plugin[Any], finders: Function | None, conf: Any, request: Request) -> list[Stale]:
    """Return what `_collect` would remove, with the part of the IPAM plugin."""
    stale: list[Stale] = []
    if finders and request.valid_attachments is not None:
        from cni.operations import garbage

        stale += garbage.plan(finders(conf, request))
    if plugin.calls_ipam and conf.ipam.type:
        from cni import delegate

        stale += delegate.plan_gc(conf.ipam.type, request)
    return stale


def _warn_of_keys(plugin: str, document: dict[str, Any], unread: tuple[Unread, ...]) -> None:
    """Log keys that look misspelt. They are allowed and have no effect."""
    from cni.misspelt import explain

    for each in explain(unread):
        note(f'{plugin}: network "{document.get("name")}": {each}')


def _check_identity(document: dict[str, Any]) -> str:
    """Check `cniVersion` and `name`, which every configuration has, and return the version."""
    from cni.conf import wrong_type

    folded = {key.lower(): value for key, value in document.items() if value is not None}
    version = folded.get("cniversion", "")
    if not isinstance(version, str):
        raise wrong_type("cniVersion", "a string", version)
    name = folded.get("name", "")
    if not isinstance(name, str):
        raise wrong_type("name", "a string", name)
    if not name:
        raise CniError(Code.INVALID_CONFIG, "missing network name", 'Set "name" in the network\'s file.')
    check_name(name, Code.INVALID_CONFIG, "invalid characters found in network name")
    return version or versions.OLDEST


def _without_own_netns(request: Request) -> Request:
    """Refuse the plugin's own network namespace. A DEL continues without a namespace."""
    if request.verb not in ATTACHMENT_VERBS or not request.netns:
        return request
    from cni.kernel.netns import is_own

    if not _netns_check_applies(request) or not is_own(request.netns):
        return request
    if request.verb is Verb.DEL:
        return request._replace(netns="")
    raise CniError(
        Code.INVALID_NETNS,
        "plugin's netns and netns from CNI_NETNS should not be the same",
        f"CNI_NETNS is {request.netns}, the namespace the plugin itself runs in",
    )


def _netns_check_applies(request: Request) -> bool:
    return request.env.get("CNI_NETNS_OVERRIDE", "").lower() not in {"1", "true"}


def _with_document(request: Request, document: dict[str, Any], version: str, text: bytes) -> Request:
    """Return the request with prevResult and the valid attachments of the configuration."""
    folded = {key.lower(): value for key, value in document.items()}
    previous = folded.get("prevresult") if request.verb in ATTACHMENT_VERBS else None
    if previous is not None:
        if not isinstance(previous, dict):
            from cni.conf import wrong_type

            raise wrong_type("prevResult", "an object", previous)
        from cni.convert import parse_result

        request = request._replace(prev_result=parse_result(previous, version, "prevResult"))
    if request.verb in GC_VERBS:
        request = request._replace(valid_attachments=_valid_attachments(folded))
    return request._replace(stdin=text, version=version)


def _valid_attachments(folded: dict[str, Any]) -> frozenset[Attachment] | None:
    """Return the attachments that GC must keep: None without such a key, the empty set for null."""
    keys = [key for key in ("cni.dev/valid-attachments", "cni.dev/attachments") if key in folded]
    if not keys:
        return None
    listed = [] if folded[keys[0]] is None else folded[keys[0]]
    if not isinstance(listed, list):
        from cni.conf import wrong_type

        # GC with an empty array removes every attachment, so an empty object is not taken for one.
        raise wrong_type(keys[0], "an array of objects", listed)
    try:
        return frozenset(
            Attachment(folded_each["containerid"], folded_each["ifname"])
            for each in listed
            for folded_each in [{key.lower(): value for key, value in each.items()}]
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise CniError(
            Code.INVALID_CONFIG,
            f'"{keys[0]}" must be an array of attachments',
            'each is {"containerID": "...", "ifname": "..."}; nothing was removed',
        ) from error
