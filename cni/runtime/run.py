"""Run a command of the host in a network namespace of its own: `pycni run`.

The namespace is attached to the networks as a runtime does it, by ADD of their plugins, and the results are
in the result cache. So the other commands find the container by its name. It is detached at the end.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cni import stops, versions
from cni.convert import parse_result, show_result
from cni.dns import records
from cni.dns.names import Key
from cni.errors import CniError, Code, ErrorList
from cni.log import note
from cni.operations import holders, runs
from cni.request import check_name
from cni.runtime import connect, etc_files, sandbox
from cni.runtime.connect import changing_containers
from cni.runtime.containers import Container, names
from cni.runtime.derive import RuntimeArgs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime
    from cni.runtime.connect import Wish
    from cni.runtime.etc_files import Resolver
    from cni.runtime.network import Network
    from cni.runtime.sandbox import Inside, Sandbox

_RESOLV_CONF, _HOSTS = "/etc/resolv.conf", "/etc/hosts"
# The servers behind systemd's own, which listens at a loopback address.
_BEHIND_SYSTEMD = "/run/systemd/resolve/resolv.conf"
# Of a label in the DNS, and less than the kernel's limit for host names.
_LONGEST_NAME = 63
# SIGKILL and SIGSTOP cannot be passed on. The others are about this process, or stop and continue a job.
_NOT_PASSED_ON = frozenset(
    {
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT),
        *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGURG, signal.SIGXCPU, signal.SIGXFSZ, signal.SIGABRT),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGTRAP, signal.SIGSYS),
    }
)
# Python ignores them in all processes.
_OF_PYTHON = frozenset({signal.SIGPIPE, signal.SIGXFSZ})


class Asked(NamedTuple):
    """The options of `pycni run`. `networks` are those to attach, with the options of each."""

    name: str
    container_id: str
    networks: tuple[tuple[Network, Wish], ...]
    inside: Inside
    resolver: Resolver
    added_hosts: tuple[str, ...] = ()


def run(runtime: Runtime, asked: Asked) -> int:
    """Run COMMAND in its namespaces. Return its exit code when it has ended and nothing of it remains.

    Raise CniError if it was not started. Then nothing remains either.
    """
    _check(asked)
    ignored = frozenset(
        each for each in signal.valid_signals() - _OF_PYTHON if signal.getsignal(each) == signal.SIG_IGN
    )
    with ExitStack() as stack:
        _stop_by_signals()
        has_remains = stack.enter_context(runs.claimed(asked.name))
        runs.remove_stale()
        container = Container(asked.container_id, runs.netns_path(asked.name), ())
        _require_free(runtime, container, asked, has_remains=has_remains)
        # This runs when COMMAND has no process any more.
        stack.callback(_detach, runtime, container, asked.name)
        inside = asked.inside._replace(ignored=ignored)
        box = stack.enter_context(sandbox.prepared(inside))
        if inside.has_network:
            runs.mount_netns(asked.name, box.pid)
        results: dict[Key, Mapping[str, Any]] = {}
        for network, wish in asked.networks:
            key, result = _attach(runtime, network, container, wish)
            results[key] = result
        shown = _write_files(asked, results)
        # From here on signals are for COMMAND.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _NOT_PASSED_ON | {signal.SIGCHLD})
        return _wait(box, box.start(inside.command[0], shown))


def _check(asked: Asked) -> None:
    """Raise CniError 7 for values that need no look at the host."""
    for option, text in (("--name", asked.name), ("--hostname", asked.inside.hostname or asked.name)):
        check_name(text, Code.INVALID_CONFIG, f'invalid value for {option}: "{text}"')
        if len(text) > _LONGEST_NAME:
            raise CniError(
                Code.INVALID_CONFIG,
                f"invalid value for {option}: more than {_LONGEST_NAME} characters",
            )
    etc_files.check(asked.resolver)
    etc_files.parse_added(asked.added_hosts)
    workdir = asked.inside.workdir
    if workdir and not os.path.isdir(workdir):  # noqa: PTH112 - any string is an answer
        raise CniError(
            Code.INVALID_CONFIG,
            f"invalid value for --workdir: there is no folder {workdir}",
            "Create it: COMMAND sees the files of the host.",
        )


def _stop_by_signals() -> None:
    """Let signals end the preparations by CniError 11."""
    for number in (*stops.SIGNALS, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stops.stop)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _require_free(runtime: Runtime, container: Container, asked: Asked, *, has_remains: bool) -> None:
    """Remove the attachments of a killed run. Raise CniError 105 if another container has the name."""
    for entry in runtime.cache.list_entries():
        is_own = entry.container_id == container.id
        # The processes of a run that was killed end a moment later.
        is_candidate = not has_remains if is_own else asked.name in names(entry)
        if is_candidate and holders.judge(entry.sandbox, entry.result) == holders.ALIVE:
            raise CniError(
                Code.ALREADY_EXISTS,
                f'the name "{asked.name}" is taken by container {entry.container_id} on {entry.network}',
                "Choose another name, or remove that container with its runtime.",
            )
    with changing_containers(runtime, container) as current:
        for each in _newest_first(current):
            connect.detach(runtime, each)
    if has_remains:
        # An ADD may have been killed before its result was cached.
        for number, (network, _) in enumerate(asked.networks):
            runtime.delete(network, RuntimeArgs(container.id, container.netns, f"eth{number}"))


def _attach(
    runtime: Runtime, network: Network, container: Container, wish: Wish
) -> tuple[Key, Mapping[str, Any]]:
    ifname, result = connect.attach(runtime, network, container, wish)
    shown = show_result(parse_result(dict(result), network.cni_version, "result"), versions.CURRENT)
    return Key(network.name, container.id, ifname), shown


def _detach(runtime: Runtime, container: Container, name: str) -> None:
    """Detach the container from all its networks, also those that it was connected to later.

    Log errors: COMMAND has ended, and its exit code is the result.
    """
    # No signal interrupts this.
    signal.pthread_sigmask(signal.SIG_BLOCK, {*stops.SIGNALS, signal.SIGHUP})
    errors = ErrorList()
    try:
        with changing_containers(runtime, container) as current:
            for each in _newest_first(current):
                errors.attempt(connect.detach, runtime, each)
            # Nobody connects the container from here on.
            runs.remove_netns(name)
    except CniError as error:
        errors.errors.append(error)
    for failure in errors.errors:
        note(f"pycni: could not detach container {name}: {failure}")
    if errors.errors:
        note("pycni: run pycni gc NETWORK --dead-only to remove the remains")


def _newest_first(container: Container) -> list[Entry]:
    return sorted(container.entries, key=lambda each: each.ifname, reverse=True)


def _write_files(asked: Asked, attached: Mapping[Key, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Write COMMAND's resolv.conf and hosts. Return pairs of a file and the path at which COMMAND sees it."""
    texts = {}
    results = list(attached.values())
    own = [asked.name, asked.inside.hostname or asked.name]
    added = etc_files.parse_added(asked.added_hosts)
    if results or added:
        texts[runs.HOSTS, _HOSTS] = etc_files.show_hosts(asked.name, own, results, added, _read(_HOSTS))
    if results or not asked.resolver.is_empty:
        host = etc_files.parse_resolv_conf(_read(_RESOLV_CONF))
        if asked.inside.has_network:
            reachable = etc_files.without_loopback(host)
            if host.servers and not reachable.servers:
                behind = etc_files.parse_resolv_conf(_read(_BEHIND_SYSTEMD))
                reachable = reachable._replace(servers=etc_files.without_loopback(behind).servers)
            host = reachable
        given = asked.resolver._replace(servers=_list_forwarding(attached) or asked.resolver.servers)
        resolver = etc_files.join(given, etc_files.of_results(results), host)
        texts[runs.RESOLV_CONF, _RESOLV_CONF] = etc_files.show_resolv_conf(asked.name, resolver)
    shown = []
    for (kind, target), text in texts.items():
        shown.append((str(runs.write_file(asked.name, kind, text)), _existing(target)))
    return shown


def _list_forwarding(attached: Iterable[Key]) -> tuple[str, ...]:
    """Return the servers of names that ask the servers of --dns for the container; () if there are none."""
    known = [record for key in attached if (record := records.load(key))]
    return tuple(gateway for each in known if each.upstreams for gateway in each.settings.gateways)


def _read(path: str) -> str:
    with suppress(OSError):
        return Path(path).read_text(errors="replace")
    return ""


def _existing(target: str) -> str:
    """Return a path at which a file can be mounted. Raise CniError 5."""
    if not os.path.exists(target):  # noqa: PTH110 - any error is an answer
        raise CniError(
            Code.IO_FAILURE,
            f"COMMAND cannot get a {target} of its own: the host has none, or a link to nothing",
            f"Create {target}; it may be an empty file.",
        )
    return target


def _wait(box: Sandbox, command: int) -> int:
    """Pass signals on to COMMAND until it has ended. Return its exit code; `command` is a pidfd."""
    while True:
        # An end before the signals were blocked is seen here.
        if (status := box.poll()) is not None:
            return status
        received = signal.sigwaitinfo(signal.valid_signals() - _NOT_PASSED_ON | {signal.SIGCHLD})
        # The kernel sends what a terminal causes to all processes of a job: COMMAND has got it.
        is_of_kernel = received.si_code > 0
        if received.si_signo == signal.SIGCHLD or (is_of_kernel and box.has_terminal):
            continue
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(command, received.si_signo)
