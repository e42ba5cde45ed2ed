"""Repair attachments from the result cache: each plugin restores its missing objects."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.operations import repair as repairs
from cni.operations.garbage import is_own_answer
from cni.operations.holders import is_proven_gone
from cni.request import Verb
from cni.runtime import conflists
from cni.runtime.chain import in_version
from cni.runtime.connect import changing_attachments
from cni.runtime.derive import RuntimeArgs, plugin_stdin
from cni.runtime.network import parse_network
from cni.runtime.observe import UNFINISHED
from cni.runtime.together import Question, ask_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network, PluginConf

T = TypeVar("T")

# Between two groups another command may get the lock, and a signal ends the watch.
_GROUP = 32
_AT_ONCE = max(2, min(8, len(os.sched_getaffinity(0))))

WELL, REPAIRED, DIFFERS, FAILED, GONE = "well", "repaired", "differs", "failed", "gone"


@dataclass(slots=True)
class Outcome:
    """The outcome for one attachment.

    `state` is "well", "repaired", "failed", "gone" (its namespace) or, in a dry run, "differs". `repaired`
    are sentences about restored objects, `problems` about objects that are still missing. `unasked` are
    plugins of other suites that have no CHECK for this network.
    """

    entry: Entry
    state: str = WELL
    repaired: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


def repair(
    runtime: Runtime, entries: Sequence[Entry], conf_folder: Path, *, dry_run: bool
) -> Iterator[Outcome]:
    """Repair attachments as they were configured at their ADDs. Never raises CniError.

    An attachment whose namespace is gone is not changed. With `dry_run` only CHECK runs.
    """
    for group in in_groups(entries):
        # One after the other: the first one restores what all share, and says so.
        outcomes = list(map(Outcome, group)) if dry_run else restore(runtime, group, conf_folder, at_once=1)
        compare(runtime, outcomes, conf_folder, dry_run=dry_run)
        yield from outcomes


def in_groups(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Yield the parts of a list for each of which the lock is held once."""
    for first in range(0, len(items), _GROUP):
        yield items[first : first + _GROUP]


def restore(
    runtime: Runtime, entries: Sequence[Entry], conf_folder: Path, *, at_once: int = _AT_ONCE
) -> list[Outcome]:
    """Restore what attachments lack, the first half of `repair`: `compare` must follow.

    Both hold the lock on attachments of running containers. Plugins run for several of these attachments at
    once, as runtimes call ADD. Those of one attachment run one after the other.
    """
    outcomes = list(map(Outcome, entries))
    with _blaming(outcomes), changing_attachments():
        _read_again(runtime, outcomes)
        _for_each_network(partial(_repair, runtime), _alive(outcomes, conf_folder), at_once)
    return outcomes


def compare(runtime: Runtime, outcomes: Sequence[Outcome], conf_folder: Path, *, dry_run: bool) -> None:
    """Add what attachments still lack, and their states."""
    asked = [each for each in outcomes if each.state == WELL]
    with _blaming(asked), ExitStack() as stack:
        if not dry_run:
            stack.enter_context(changing_attachments())
            _read_again(runtime, asked)
        alive = _alive(asked, conf_folder)
        _for_each_network(partial(_check, runtime), alive)
        for outcome, network in alive:
            if outcome.problems:
                outcome.state = DIFFERS if dry_run else FAILED
            elif outcome.repaired:
                outcome.state = REPAIRED
            if outcome.repaired:
                _undo_if_deleted(runtime, network, outcome)


@contextmanager
def _blaming(outcomes: Sequence[Outcome]) -> Iterator[None]:
    """Make an error of the block a problem of these attachments, so that others are still repaired."""
    try:
        yield
    except CniError as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - files of other programs and answers of plugins may hold anything
        problem = f"unexpected {type(error).__name__}: {error}"
    else:
        return
    for each in outcomes:
        _failed(each, problem)


def _alive(outcomes: Sequence[Outcome], conf_folder: Path) -> list[tuple[Outcome, Network]]:
    """Return the attachments to ask plugins for, with their networks."""
    alive = []
    for outcome in outcomes:
        with _blaming([outcome]):
            if outcome.state == WELL and (network := _network_if_alive(outcome, conf_folder)):
                alive.append((outcome, network))
    return alive


def _for_each_network(
    step: Callable[[Network, Sequence[Outcome]], None],
    alive: Sequence[tuple[Outcome, Network]],
    at_once: int = _AT_ONCE,
) -> None:
    """Run `step` for parts of the attachments of each network, `at_once` of them at the same time."""
    size = max(1, -(-len(alive) // at_once))
    networks = {network.text: network for _, network in alive}
    parts = []
    for text, network in networks.items():
        own = [outcome for outcome, each in alive if each.text == text]
        parts += [(network, own[first : first + size]) for first in range(0, len(own), size)]

    # Each thread takes the next part.
    waiting = iter(parts)

    def run() -> None:
        for network, part in waiting:
            with _blaming(part):
                step(network, part)

    threads = [Thread(target=run) for _ in parts[:at_once]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _read_again(runtime: Runtime, outcomes: Sequence[Outcome]) -> None:
    """Read the entries under the lock. A command may have changed ports, or have detached a container."""
    for outcome in outcomes:
        with _blaming([outcome]):
            entry = runtime.cache.read(outcome.entry.network, outcome.entry.attachment)
            if entry is not None:
                outcome.entry = entry
            elif not outcome.repaired:
                outcome.state = GONE


def _network_if_alive(outcome: Outcome, conf_folder: Path) -> Network | None:
    """Return the network of an attachment; None if its namespace is gone, or its ADD is not finished."""
    if is_proven_gone(outcome.entry.sandbox, outcome.entry.result):
        outcome.state = GONE
        return None
    if not outcome.entry.result:
        raise CniError(Code.TRY_AGAIN, UNFINISHED)
    return find_network(outcome.entry, conf_folder)


def find_network(entry: Entry, conf_folder: Path) -> Network:
    """Return the network as it was at ADD or, if the cache has none, as it is configured now."""
    try:
        network = parse_network(entry.config, "in the result cache")
        if network.plugins:
            return network
    except CniError:
        pass
    return conflists.find(conf_folder, entry.network)


def _failed(outcome: Outcome, problem: str) -> None:
    outcome.state = FAILED
    outcome.problems.append(problem)


def _runtime_args(entry: Entry) -> RuntimeArgs:
    return RuntimeArgs(entry.container_id, entry.sandbox, entry.ifname, entry.args, entry.capability_args)


def _repair(runtime: Runtime, network: Network, outcomes: Sequence[Outcome]) -> None:
    for plugin in network.plugins:
        for outcome, _, response in _ask(runtime, Verb.REPAIR, network, plugin, outcomes):
            with _naming(plugin, outcome):
                if isinstance(response, CniError):
                    raise response
                # A plugin of another suite does nothing.
                text = response or b"{}"
                done = repairs.parse(decode_object(text, f"the response of plugin {plugin.type}"))
                outcome.repaired += [f"{plugin.type}: {each}" for each in done.done]
                outcome.problems += [f"{plugin.type}: {each}" for each in done.failed]


def _ask(
    runtime: Runtime, verb: Verb, network: Network, plugin: PluginConf, outcomes: Sequence[Outcome]
) -> Iterator[tuple[Outcome, Question, bytes | CniError]]:
    """Ask a plugin for attachments. Yield what it was asked for each, and its answer."""
    asked: list[tuple[Outcome, Question]] = []
    for each in outcomes:
        with _naming(plugin, each):
            asked.append((each, _question(network, plugin, each.entry)))
    answers = ask_all(runtime, verb, network, plugin, [question for _, question in asked])
    for (outcome, question), response in zip(asked, answers, strict=True):
        yield outcome, question, response


def _question(network: Network, plugin: PluginConf, entry: Entry) -> Question:
    stdin = plugin_stdin(network, plugin, in_version(entry.result, network), entry.capability_args)
    return Question(stdin, _runtime_args(entry))


@contextmanager
def _naming(plugin: PluginConf, outcome: Outcome) -> Iterator[None]:
    """Make an error of the block a problem of an attachment with a plugin. Each problem is told once."""
    try:
        yield
    except CniError as error:
        problem = f"{plugin.type}: {error}"
    except Exception as error:  # noqa: BLE001 - as in `_blaming`
        problem = f"{plugin.type}: unexpected {type(error).__name__}: {error}"
    else:
        return
    outcome.problems += [] if problem in outcome.problems else [problem]


def _check(runtime: Runtime, network: Network, outcomes: Sequence[Outcome]) -> None:
    """Add what CHECK of each plugin reports.

    Plugins of this suite have their own command, with detailed messages and for all versions. Plugins of
    other suites get CHECK if the spec and the network's file allow it.
    """
    for plugin in network.plugins:
        for outcome, question, response in _ask(runtime, Verb.CHECK_ANY, network, plugin, outcomes):
            with _naming(plugin, outcome):
                if not _check_one(runtime, network, plugin, question, response):
                    outcome.unasked.append(plugin.type)


def _check_one(
    runtime: Runtime, network: Network, plugin: PluginConf, question: Question, response: bytes | CniError
) -> bool:
    """Judge the response to our CHECK. Return False if the plugin has none for this network.

    Raises the plugin's CniError.
    """
    has_check = network.has(Verb.CHECK) and not network.disable_check
    own_error = response if isinstance(response, CniError) else None
    if not isinstance(response, CniError) and is_own_answer(response):
        return True
    if not has_check:
        if own_error:
            raise own_error
        return False
    try:
        runtime.run(Verb.CHECK, plugin, *question)
    except CniError as error:
        # A plugin of another suite may have refused the own command with another code.
        raise own_error if own_error and own_error.code == error.code else error from error
    return True


def undo_if_deleted(runtime: Runtime, outcome: Outcome, conf_folder: Path) -> None:
    """Delete again what a repair restored some time ago for an attachment whose DEL had begun before it."""
    with _blaming([outcome]):
        try:
            network = find_network(outcome.entry, conf_folder)
        except CniError:
            return
        _undo_if_deleted(runtime, network, outcome)


def _undo_if_deleted(runtime: Runtime, network: Network, outcome: Outcome) -> None:
    """Delete again what was restored for an attachment that was deleted meanwhile."""
    entry = outcome.entry
    try:
        if runtime.cache.read(entry.network, entry.attachment) is None:
            runtime.delete(network, _runtime_args(entry))
            outcome.state = GONE
    except CniError as error:
        if error.code != Code.DECODING_FAILURE:
            _failed(outcome, str(error))
