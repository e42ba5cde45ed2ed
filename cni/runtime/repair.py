"""Repair attachments from the result cache: each plugin of a chain makes again what it misses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cni.conf import decode_object
from cni.errors import CniError, Code
from cni.operations import repair as repairs
from cni.operations.garbage import is_own_answer
from cni.operations.holders import is_proven_gone
from cni.request import Verb
from cni.runtime import conflists
from cni.runtime.chain import in_version
from cni.runtime.derive import RuntimeArgs, plugin_stdin
from cni.runtime.network import parse_network

if TYPE_CHECKING:
    from pathlib import Path

    from cni.operations.repair import Repaired
    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.network import Network, PluginConf

WELL, REPAIRED, DIFFERS, FAILED, GONE = "well", "repaired", "differs", "failed", "gone"


@dataclass(slots=True)
class Outcome:
    """What became of one attachment.

    `state` is "well", "repaired", "failed", "gone" (its namespace) or, in a dry run, "differs". `repaired`
    tells what was made again, `problems` what is still wrong. `unasked` are plugins of other suites that
    cannot be asked what is wrong.
    """

    entry: Entry
    state: str = WELL
    repaired: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    unasked: list[str] = field(default_factory=list)


def repair(runtime: Runtime, entry: Entry, conf_folder: Path, *, dry_run: bool) -> Outcome:
    """Repair one attachment as it was configured at its ADD; never raises CniError.

    One whose namespace is gone is left alone, and a `dry_run` only tells what its CHECK does.
    """
    outcome = Outcome(entry)
    if is_proven_gone(entry.sandbox, entry.result):
        outcome.state = GONE
        return outcome
    try:
        network = find_network(entry, conf_folder)
    except CniError as error:
        return _failed(outcome, str(error))
    if not dry_run:
        _repair(runtime, network, outcome)
    _check(runtime, network, outcome)
    if outcome.problems:
        outcome.state = DIFFERS if dry_run else FAILED
    elif outcome.repaired:
        outcome.state = REPAIRED
    if outcome.repaired:
        _undo_if_deleted(runtime, network, outcome)
    return outcome


def find_network(entry: Entry, conf_folder: Path) -> Network:
    """Give the network as it was at ADD or, where that is not known, as it is configured now."""
    try:
        network = parse_network(entry.config, "in the result cache")
        if network.plugins:
            return network
    except CniError:
        pass
    return conflists.find(conf_folder, entry.network)


def _failed(outcome: Outcome, told: str) -> Outcome:
    outcome.state = FAILED
    outcome.problems.append(told)
    return outcome


def _told(entry: Entry) -> RuntimeArgs:
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
    """Let a plugin repair its part; one of another suite has done nothing."""
    stdin = plugin_stdin(network, plugin, in_version(entry.result, network), entry.capability_args)
    answer = runtime.ask_own(Verb.REPAIR, plugin, stdin, _told(entry))
    if not answer:
        return repairs.Repaired()
    return repairs.parse(decode_object(answer, f"the answer of plugin {plugin.type}"))


def _check(runtime: Runtime, network: Network, outcome: Outcome) -> None:
    """Add what CHECK of each plugin reports.

    Plugins of this suite are asked by their own command, which names what is missing for people and has
    no minimum version; those of other suites where the spec and the network's file allow it.
    """
    entry = outcome.entry
    for plugin in network.plugins:
        stdin = plugin_stdin(network, plugin, in_version(entry.result, network), entry.capability_args)
        try:
            if not _check_one(runtime, network, plugin, stdin, _told(entry)):
                outcome.unasked.append(plugin.type)
        except CniError as error:
            told = f"{plugin.type}: {error}"
            outcome.problems += [] if told in outcome.problems else [told]


def _check_one(
    runtime: Runtime, network: Network, plugin: PluginConf, stdin: bytes, told: RuntimeArgs
) -> bool:
    """Let one plugin check its part; return False for one that cannot be asked. Raises its CniError."""
    has_check = network.has(Verb.CHECK) and not network.disable_check
    brief: CniError | None = None
    try:
        if is_own_answer(runtime.ask_own(Verb.CHECK_ANY, plugin, stdin, told)):
            return True
    except CniError as error:
        brief = error
    if not has_check:
        if brief:
            raise brief
        return False
    try:
        runtime.run(Verb.CHECK, plugin, stdin, told)
    except CniError as error:
        # One of another suite may have refused the command in its own way: then the codes differ.
        raise brief if brief and brief.code == error.code else error from error
    return True


def _undo_if_deleted(runtime: Runtime, network: Network, outcome: Outcome) -> None:
    """Take away again what was made for an attachment that was deleted meanwhile."""
    entry = outcome.entry
    try:
        if runtime.cache.read(entry.network, entry.attachment) is None:
            runtime.delete(network, _told(entry))
            outcome.state = GONE
    except CniError as error:
        if error.code != Code.DECODING_FAILURE:
            _failed(outcome, str(error))
