"""Ask a plugin for many attachments of a network: in one process if it is of this suite."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from cni.conf import decode_object
from cni.errors import CniError
from cni.operations import calls
from cni.request import Verb
from cni.runtime.derive import plugin_env, plugin_stdin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cni.runtime.chain import Runtime
    from cni.runtime.derive import RuntimeArgs
    from cni.runtime.network import Network, PluginConf


class Question(NamedTuple):
    """A call of a plugin for one attachment: its stdin, and the arguments of the runtime."""

    stdin: bytes
    runtime_args: RuntimeArgs


def ask_all(
    runtime: Runtime, verb: Verb, network: Network, plugin: PluginConf, asked: Sequence[Question]
) -> list[bytes | CniError]:
    """Run a command of this suite for each attachment. Return the answers, or errors, in order.

    As `Runtime.ask_own`, it returns b"" for a plugin of another suite, which does not know the command.
    """
    if len(asked) > 1:
        try:
            if answers := _ask_together(runtime, verb, network, plugin, asked):
                return answers
        except CniError as error:
            return [error] * len(asked)
    return [_ask(runtime, verb, plugin, each) for each in asked]


def _ask_together(
    runtime: Runtime, verb: Verb, network: Network, plugin: PluginConf, asked: Sequence[Question]
) -> list[bytes | CniError]:
    """Return [] if the plugin does not know calls for many."""
    listed: list[calls.Call] = [
        (plugin_env({}, verb, runtime.path, each.runtime_args), json.loads(each.stdin)) for each in asked
    ]
    stdin = json.dumps(calls.document(json.loads(plugin_stdin(network, plugin)), listed)).encode()
    response = runtime.ask_own(Verb.CALLS, plugin, stdin, calls=len(asked))
    if not response:
        return []
    return calls.parse(decode_object(response, f"the response of plugin {plugin.type}"), len(asked))


def _ask(runtime: Runtime, verb: Verb, plugin: PluginConf, asked: Question) -> bytes | CniError:
    try:
        return runtime.ask_own(verb, plugin, asked.stdin, asked.runtime_args)
    except CniError as error:
        return error
