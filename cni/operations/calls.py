"""Several calls of one plugin in one process, for a command that asks for many attachments.

The start of the launcher, the way to a worker and the answer cost a third of a repair's CPU time. The
configuration of such a call has the calls under `KEY`. Each is answered as a call of its own, so that one
that fails does not affect the others. A step that costs the same for one attachment as for all of them runs
once, after the last call: `once`.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

from cni import stops
from cni.errors import CniError, Code
from cni.request import Verb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Step = Callable[[Sequence[Any]], object]

T = TypeVar("T")
Json = dict[str, Any]
# A call: the CNI_* variables and the configuration.
Call = tuple[dict[str, str], Json]

KEY = "pycni.calls"
_ANSWERS = "calls"
# ADD and DEL answer for themselves alone: a runtime waits for each.
_VERBS = frozenset({Verb.REPAIR, Verb.CHECK_ANY})

# The steps that wait for the last call, with the items of all calls; None outside `answer`.
_waiting: dict[Step, list[Any]] | None = None


class Run(Protocol):
    """`skel.run` of a plugin."""

    def __call__(self, *, env: Mapping[str, str], stdin: BinaryIO, stdout: BinaryIO) -> int:
        """Run one call and return the exit status."""


def document(configuration: Json, calls: Sequence[Call]) -> Json:
    """Return the configuration of a call with these calls."""
    return configuration | {KEY: [{"env": env, "conf": conf} for env, conf in calls]}


def answer(run: Run, env: Mapping[str, str], given: Json) -> Json:
    """Run the calls of a configuration, one after the other. Raise CniError 7, or 11 after a signal."""
    answers = []
    with _delaying():
        for variables, conf in _read(given.get(KEY)):
            stdout = BytesIO()
            status = run(env={**env, **variables}, stdin=BytesIO(json.dumps(conf).encode()), stdout=stdout)
            if stopped := stops.requested():
                raise stopped
            answers.append({"failed": status != 0, "answer": json.loads(stdout.getvalue() or b"{}")})
    return {_ANSWERS: answers}


def once(step: Callable[[Sequence[T]], object], items: Sequence[T]) -> None:
    """Run `step(items)`: at once, or for several calls together after the last one, with the items of all."""
    if _waiting is None:
        step(items)
    else:
        _waiting.setdefault(step, []).extend(items)


@contextmanager
def _delaying() -> Iterator[None]:
    """Let `once` wait for the end of the block, which may also be an error."""
    global _waiting  # noqa: PLW0603 - a process answers one request at a time
    waiting = _waiting = {}
    try:
        yield
    finally:
        _waiting = None
        for step, items in waiting.items():
            step(items)


def _read(listed: Any) -> list[Call]:
    try:
        if isinstance(listed, list) and all(
            each["env"]["CNI_COMMAND"] in _VERBS and isinstance(each["conf"], dict) for each in listed
        ):
            return [({**each["env"]}, each["conf"]) for each in listed]
    except (KeyError, TypeError):
        pass
    raise CniError(
        Code.INVALID_CONFIG,
        f'"{KEY}" must be an array of calls',
        f'each is {{"env": {{"CNI_COMMAND": ...}}, "conf": {{...}}}}, with {" or ".join(sorted(_VERBS))}',
    )


def parse(response: Json, count: int) -> list[bytes | CniError]:
    """Return the answers to `count` calls, or their errors, from what `answer` returns. Raise CniError 6."""
    try:
        answers = [(each["failed"], each["answer"]) for each in response[_ANSWERS]]
        found: list[bytes | CniError] = [
            CniError(int(shown["code"]), str(shown["msg"]), str(shown.get("details", "")))
            if is_failed
            else json.dumps(shown).encode()
            for is_failed, shown in answers
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        found = []
    if len(found) != count:
        raise CniError(Code.DECODING_FAILURE, f"the plugin did not answer {count} calls")
    return found
