"""Repair attachments from the result cache: each plugin restores its missing objects."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Thread
from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cni.operations.repair import Repaired
    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network, PluginConf

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


def repair(runtime: Runtime, entry: Entry, conf_folder: Path, *, dry_run: bool) -> Outcome:
    """Repair one attachment as it was configured at its ADD. Never raises CniError.

    An attachment whose namespace is gone is not changed. With `dry_run` only CHECK runs.
    """
    [outcome] = [Outcome(entry)] if dry_run else restore(runtime, [entry], conf_folder)
    compare(runtime, outcome, conf_folder, dry_run=dry_run)
    return outcome


def restore(runtime: Runtime, entries: Sequence[Entry], conf_folder: Path) -> list[Outcome]:
    """Restore what attachments lack, the first half of `repair`: `compare` must follow.

    Both hold the lock on attachments of running containers. Plugins run for all of these attachments at once,
    as runtimes call ADD. Those of one attachment run one after the other.
    """
    outcomes = [Outcome(each) for each in entries]
    try:
        with changing_attachments():
            found = [(each, _network_now(runtime, each, conf_folder)) for each in outcomes]
            threads = [
                Thread(target=_repair, args=(runtime, network, each)) for each, network in found if network
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    except CniError as error:
        for each in outcomes:
            _failed(each, str(error))
    return outcomes


def _network_now(runtime: Runtime, outcome: Outcome, conf_folder: Path) -> Network | None:
    """Return the network of an attachment as the cache has it now; None if there is nothing to repair."""
    try:
        _read_again(runtime, outcome)
        return _network_if_alive(outcome, conf_folder)
    except CniError as error:
        _failed(outcome, str(error))
        return None


def compare(runtime: Runtime, outcome: Outcome, conf_folder: Path, *, dry_run: bool) -> None:
    """Add what is still missing, and the state."""
    try:
        if dry_run:
            _compare(runtime, outcome, conf_folder, dry_run=True)
        elif outcome.state == WELL:
            with changing_attachments():
                _read_again(runtime, outcome)
                _compare(runtime, outcome, conf_folder, dry_run=False)
    except CniError as error:
        _failed(outcome, str(error))


def _compare(runtime: Runtime, outcome: Outcome, conf_folder: Path, *, dry_run: bool) -> None:
    network = _network_if_alive(outcome, conf_folder)
    if network is None:
        return
    _check(runtime, network, outcome)
    if outcome.problems:
        outcome.state = DIFFERS if dry_run else FAILED
    elif outcome.repaired:
        outcome.state = REPAIRED
    if outcome.repaired:
        _undo_if_deleted(runtime, network, outcome)


def _read_again(runtime: Runtime, outcome: Outcome) -> None:
    """Read the entry under the lock. A command may have changed its ports, or have detached the container."""
    entry = runtime.cache.read(outcome.entry.network, outcome.entry.attachment)
    if entry is not None:
        outcome.entry = entry
    elif not outcome.repaired:
        outcome.state = GONE


def _network_if_alive(outcome: Outcome, conf_folder: Path) -> Network | None:
    """Return the network of an attachment; None if its namespace or its configuration is gone."""
    if outcome.state == GONE or is_proven_gone(outcome.entry.sandbox, outcome.entry.result):
        outcome.state = GONE
        return None
    if not outcome.entry.result:
        _failed(outcome, UNFINISHED)
        return None
    try:
        return find_network(outcome.entry, conf_folder)
    except CniError as error:
        _failed(outcome, str(error))
        return None


def find_network(entry: Entry, conf_folder: Path) -> Network:
    """Return the network as it was at ADD or, if the cache has none, as it is configured now."""
    try:
        network = parse_network(entry.config, "in the result cache")
        if network.plugins:
            return network
    except CniError:
        pass
    return conflists.find(conf_folder, entry.network)


def _failed(outcome: Outcome, problem: str) -> Outcome:
    outcome.state = FAILED
    outcome.problems.append(problem)
    return outcome


def _runtime_args(entry: Entry) -> RuntimeArgs:
    return RuntimeArgs(entry.container_id, entry.sandbox, entry.ifname, entry.args, entry.capability_args)


def _repair(runtime: Runtime, network: Network, outcome: Outcome) -> None:
    for plugin in network.plugins:
        try:
            done = _repair_one(runtime, network, plugin, outcome.entry)
        except CniError as error:
            outcome.problems.append(f"{plugin.type}: {error}")
            continue
        outcome.repaired += [f"{plugin.type}: {each}" for each in done.done]
        outcome.problems += [f"{plugin.type}: {each}" for each in done.failed]


def _repair_one(runtime: Runtime, network: Network, plugin: PluginConf, entry: Entry) -> Repaired:
    """Run the repair of a plugin; a plugin of another suite does nothing."""
    stdin = plugin_stdin(network, plugin, in_version(entry.result, network), entry.capability_args)
    response = runtime.ask_own(Verb.REPAIR, plugin, stdin, _runtime_args(entry))
    if not response:
        return repairs.Repaired()
    return repairs.parse(decode_object(response, f"the response of plugin {plugin.type}"))


def _check(runtime: Runtime, network: Network, outcome: Outcome) -> None:
    """Add what CHECK of each plugin reports.

    Plugins of this suite have their own command, with detailed messages and for all versions. Plugins of
    other suites get CHECK if the spec and the network's file allow it.
    """
    entry = outcome.entry
    for plugin in network.plugins:
        stdin = plugin_stdin(network, plugin, in_version(entry.result, network), entry.capability_args)
        try:
            if not _check_one(runtime, network, plugin, stdin, _runtime_args(entry)):
                outcome.unasked.append(plugin.type)
        except CniError as error:
            problem = f"{plugin.type}: {error}"
            outcome.problems += [] if problem in outcome.problems else [problem]


def _check_one(
    runtime: Runtime, network: Network, plugin: PluginConf, stdin: bytes, runtime_args: RuntimeArgs
) -> bool:
    """Run CHECK of one plugin. Return False if it has none for this network. Raises the plugin's CniError."""
    has_check = network.has(Verb.CHECK) and not network.disable_check
    own_error: CniError | None = None
    try:
        if is_own_answer(runtime.ask_own(Verb.CHECK_ANY, plugin, stdin, runtime_args)):
            return True
    except CniError as error:
        own_error = error
    if not has_check:
        if own_error:
            raise own_error
        return False
    try:
        runtime.run(Verb.CHECK, plugin, stdin, runtime_args)
    except CniError as error:
        # A plugin of another suite may have refused the own command with another code.
        raise own_error if own_error and own_error.code == error.code else error from error
    return True


def undo_if_deleted(runtime: Runtime, outcome: Outcome, conf_folder: Path) -> None:
    """Delete again what a repair restored some time ago for an attachment whose DEL had begun before it."""
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
