"""Publish a record, and wait until the server answers its name; withdraw it, and wait until it does not."""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING

from cni.dns import client, records
from cni.dns.client import HELPER
from cni.errors import CniError, Code
from cni.kernel.netns import open_netns
from cni.log import note
from cni_dnsname import admission

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cni.dns.names import Key, Record
    from cni.kernel.netns import Netns

# A machine under load may give the server no time for seconds.
_WITHIN_S = 10.0
_LOOK_EVERY_S = 0.02


def now_ns() -> int:
    """Return the time of an ADD: it orders the attachments of a container."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def publish(record: Record, bus: str, *, everywhere: bool = False) -> None:
    """Publish a record; `bus` and `everywhere` are those of `admit`. Raise CniError 11, 101, 103 or 106."""
    refusal = _publish_admitted(record, bus, everywhere=everywhere)
    HELPER.wake(until_done=True)
    deadline_s = time.monotonic() + _WITHIN_S
    while missing := list(unanswered(record)):
        from cni_dnsname import port  # Only a call that fails needs it.

        if others := port.list_others(missing[0]):
            raise CniError(
                Code.PORT_TAKEN,
                f'could not publish "{record.names[0]}": port 53 of {missing[0]} is taken: {others[0]}',
                "Stop that program, or let it listen at other addresses only.",
            )
        if time.monotonic() > deadline_s:
            raise CniError(
                Code.TRY_AGAIN,
                f'could not publish "{record.names[0]}": the DNS server at {missing[0]} does not answer with '
                "its address",
                "Call the command again. The server's messages are in the system's log.",
            )
        time.sleep(_LOOK_EVERY_S)
    # An administrator may have accepted what this call could not.
    if refusal and any(unheard(record)):
        raise refusal


def _publish_admitted(record: Record, bus: str, *, everywhere: bool) -> CniError | None:
    """Accept the queries of the record's network, and save the record. Return the firewall's refusal."""
    refusal = None
    with admission.locked():
        try:
            admission.admit(record, bus, everywhere=everywhere)
        except CniError as error:
            if error.code != Code.FIREWALL:
                raise
            refusal = error
        records.publish(record)
    return refusal


def withdraw(key: Key) -> bool:
    """Withdraw a record, and the rules of a network without names; return whether there was a record."""
    is_removed = records.withdraw(key)
    if is_removed:
        look()
    withdraw_rules(key.network)
    return is_removed


def withdraw_rules(network: str) -> None:
    """Remove the rules of a network, unless it has names. Raise CniError 11, 101 or 106."""
    if records.has_network(network):
        return
    # Without the lock no ADD of this release has made rules. An earlier one took none.
    with admission.locked() if admission.LOCK.exists() else nullcontext():
        admission.withdraw(network)


def look() -> None:
    """Let the server look at the records, if it runs. A later look shows it what this one could not."""
    try:
        if HELPER.is_running():
            HELPER.wake(until_done=True)
    except CniError as error:
        note(f"dnsname: {error}")


def unanswered(record: Record) -> Iterator[str]:
    """Yield the gateways at which neither the host nor the container gets an answer for the record."""
    wanted = {each for each in record.addresses if (":" in each) == (":" in record.addresses[0])}
    for gateway in record.settings.gateways:
        if not (wanted <= _ask(record, gateway) or _is_answered_inside(record, gateway)):
            yield gateway


def _is_answered_inside(record: Record, gateway: str) -> bool:
    """Return whether the container gets addresses that are on record for its name.

    Another program at port 53 may answer as well.
    """
    answer = _ask_inside(record, gateway)
    listed = [each for each in records.list_all() if record.names[0] in each.names] if answer else []
    return bool(answer) and answer <= {address for each in listed for address in each.addresses}


def unheard(record: Record, within_s: float = 2.0) -> Iterator[str]:
    """Yield the gateways at which the container gets no answer at all; none if its namespace is gone."""
    for gateway in record.settings.gateways:
        try:
            with open_netns(record.netns) as ns:
                if not _hears(record, gateway, ns, within_s):
                    yield gateway
        except CniError:
            continue


def _hears(record: Record, gateway: str, ns: Netns, within_s: float) -> bool:
    try:
        return client.ask(gateway, record.names[0], client.A, within_s, ns=ns) is not None
    except OSError:
        return False


def _ask_inside(record: Record, gateway: str) -> set[str]:
    """Return what the container is answered.

    What the host asks goes to a container that publishes port 53, what a container asks its own gateway does
    not. The server answers a container whose record it has read. A container with several networks gets its
    address on the first of them.
    """
    try:
        with open_netns(record.netns) as ns:
            return _ask(record, gateway, ns)
    except CniError:
        return set()


def _ask(record: Record, gateway: str, ns: Netns | None = None) -> set[str]:
    domain = record.settings.domain
    name = f"{record.names[0]}.{domain}" if domain else record.names[0]
    kind = client.AAAA if ":" in record.addresses[0] else client.A
    try:
        answer = client.ask(gateway, name, kind, timeout_s=1.0, ns=ns)
    except OSError:
        return set()
    return set(answer.addresses) if answer else set()
