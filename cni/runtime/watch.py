"""Repair attachments as soon as the host has lost a part of them: `pycni watch`.

A loss that several attachments share is repaired at once. One attachment alone may just be deleted by its
runtime, which removes the cached result at the end: it gets time for that, and is repaired if it is still
cached. For the same reason the watch looks again some time after each repair whether the result is there.
"""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cni.errors import CniError, Code
from cni.firewall.intents import Owner
from cni.log import note
from cni.request import Attachment
from cni.runtime.belongings import Loss, Register
from cni.runtime.hearing import Hearing
from cni.runtime.pace import Pace
from cni.runtime.repair import (
    DIFFERS,
    FAILED,
    GONE,
    REPAIRED,
    WELL,
    Outcome,
    compare,
    in_groups,
    restore,
    undo_if_deleted,
)
from cni.state import files
from cni.state.lock import locked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cni.runtime.cache import Entry
    from cni.runtime.chain import Runtime

_LOCK = Path("/run/pycni/watch.lock")
# A burst of announcements is read to its end first: until none has come for the first time.
_QUIET_S, _LONGEST_BURST_S = 0.02, 0.2
_DEL_MAY_TAKE_S = _ADD_MAY_TAKE_S = 1.0
_LOOK_BACK_S = (1.0, 5.0)
# Failures that pass by themselves, such as a lock that another program holds.
_TRY_AGAIN_S = (0.1, 1.0, 5.0, 25.0)
_AFTER_ERROR_S = 5.0
_MOST_TEXTS = 3
_SIGNALS = (signal.SIGTERM, signal.SIGINT)

START = "the watch has started"
_DELETED = "a DEL had begun before the repair, and the restored parts could not be deleted again"


class Round(NamedTuple):
    """One round of repairs: its reason, the attachments for which something was missing, and its duration.

    `checked` attachments were looked at. If other programs delete the same again and again, the next round
    begins `pause_s` seconds later at the earliest.
    """

    reason: str
    outcomes: list[Outcome]
    checked: int
    seconds: float
    pause_s: float = 0.0


class Watch:
    """The watch of one network, of all if `network` is "". `report` gets each round that matters."""

    def __init__(
        self,
        runtime: Runtime,
        conf_folder: Path,
        network: str,
        report: Callable[[Round], None],
        *,
        dry_run: bool,
    ) -> None:
        self._runtime = runtime
        self._conf_folder = conf_folder
        self._network = network
        self._report = report
        self._dry_run = dry_run
        self._register = Register(runtime.cache, network)
        self._pace = Pace()
        self._stops: list[int] = []
        # Monotonic times of rounds, for one attachment or, by None, for all; and why.
        self._due: dict[Owner | None, float] = {}
        self._reasons: dict[Owner | None, dict[str, None]] = {}
        # What was restored, and when to look again whether the attachment is still cached.
        self._restored: dict[Owner, tuple[Outcome, list[float]]] = {}
        # Failures in a row, what was repaired before the first of them, and the problems reported last.
        self._failures: dict[Owner, int] = {}
        self._unreported: dict[Owner, list[str]] = {}
        self._reported: dict[Owner, list[str]] = {}

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT. Raise CniError 11 if another watch repairs here."""
        with ExitStack() as stack:
            if not self._dry_run:
                stack.enter_context(_only_one())
            wakeup = stack.enter_context(_heeding_signals(self._end))
            hearing = Hearing()
            poller = select.poll()
            for fd in (wakeup, *hearing.fds):
                poller.register(fd, select.POLLIN)
            self._note(Loss(START))
            while not self._stops:
                try:
                    self._work()
                    poller.poll(self._patience_ms(hearing))
                    if not self._stops and hearing.read():
                        self._read_burst(poller, hearing)
                        self._register.refresh()
                        for loss in hearing.losses(self._register):
                            self._note(loss)
                except CniError as error:
                    note(f"pycni: all attachments are checked again in {_AFTER_ERROR_S:g} s: {error}")
                    self._plan(None, time.monotonic() + _AFTER_ERROR_S, str(error))

    def _end(self, number: int) -> None:
        self._stops.append(number)

    def _patience_ms(self, hearing: Hearing) -> float | None:
        """Return the time until something is due, None if nothing is: then only an announcement wakes it."""
        due = [times[0] for _, times in self._restored.values()]
        if self._due:
            due.append(max(min(self._due.values()), self._pace.not_before_s))
        if hearing.due_s is not None:
            due.append(hearing.due_s)
        if self._stops:
            return 0
        return max(0.0, min(due) - time.monotonic()) * 1000 + 1 if due else None

    def _read_burst(self, poller: select.poll, hearing: Hearing) -> None:
        deadline = time.monotonic() + _LONGEST_BURST_S
        while poller.poll(_QUIET_S * 1000) and not self._stops and time.monotonic() < deadline:
            hearing.read()

    def _note(self, loss: Loss) -> None:
        """Plan a round for a loss."""
        now_s = time.monotonic()
        owners: list[Owner | None] = [None] if loss.owners is None else [*loss.owners]
        # A DEL deletes what belongs to one container.
        is_del = len({each.container_id for each in loss.owners or ()}) == 1
        due_s = now_s + _DEL_MAY_TAKE_S if is_del else now_s
        for each in owners:
            self._plan(each, due_s, loss.text)

    def _plan(self, owner: Owner | None, due_s: float, reason: str) -> None:
        self._due[owner] = min(due_s, self._due.get(owner, due_s))
        self._reasons.setdefault(owner, {})[reason] = None

    def _work(self) -> None:
        """Do what is due."""
        now_s = time.monotonic()
        self._look_back(now_s)
        due = {owner for owner, due_s in self._due.items() if due_s <= now_s}
        if due and now_s >= self._pace.not_before_s:
            self._repair(set(self._due) if None in due else due)

    def _repair(self, due: set[Owner | None]) -> None:
        # What all attachments share comes first.
        reasons = [text for owner in sorted(due, key=bool) for text in self._reasons.pop(owner, ())]
        for owner in due:
            self._due.pop(owner, None)
        started_s = time.monotonic()
        outcomes = self._restore_all(due)
        now_s = time.monotonic()
        restored = [each for each in outcomes if each.repaired and each.state != GONE]
        for each in restored:
            self._restored[_owner(each.entry)] = each, [now_s + wait_s for wait_s in _LOOK_BACK_S]
        news = [each for each in outcomes if not self._stops and self._is_news(each, reasons)]
        pause_s = self._pace.after(has_repaired=bool(restored), took_s=now_s - started_s)
        if news or START in reasons:
            self._report(Round(_summary(reasons), news, len(outcomes), now_s - started_s, pause_s))

    def _restore_all(self, due: set[Owner | None]) -> list[Outcome]:
        """Restore all before any is compared, which takes as long again."""
        entries = list(self._entries(due))
        outcomes = list(map(Outcome, entries)) if self._dry_run else []
        for group in () if self._dry_run else in_groups(entries):
            if self._stops:
                break
            outcomes += restore(self._runtime, group, self._conf_folder)
        for done in in_groups(outcomes):
            if self._stops:
                break
            compare(self._runtime, done, self._conf_folder, dry_run=self._dry_run)
        return outcomes

    def _entries(self, due: set[Owner | None]) -> Iterator[Entry]:
        """Yield the cached attachments of `due`. One that was deleted meanwhile is not among them."""
        if None in due:
            entries = self._runtime.cache.list_entries()
            yield from (each for each in entries if self._network in {"", each.network})
            return
        for owner in due:
            if owner and (entry := self._read(owner)):
                yield entry

    def _read(self, owner: Owner) -> Entry | None:
        return self._runtime.cache.read(owner.network, Attachment(owner.container_id, owner.ifname))

    def _is_news(self, outcome: Outcome, reasons: list[str]) -> bool:
        """Return whether to report an outcome, and plan another attempt if it is a failure.

        The first failure is not reported, because another program may just be deleting more. Later ones are
        reported once: the same problem of the same attachment is no news.
        """
        owner = _owner(outcome.entry)
        attempts = self._failures.pop(owner, 0)
        outcome.repaired[:0] = self._unreported.pop(owner, [])
        if outcome.state == FAILED:
            self._failures[owner] = attempts + 1
            if attempts < len(_TRY_AGAIN_S):
                for each in reasons:
                    self._plan(owner, time.monotonic() + _TRY_AGAIN_S[attempts], each)
            if not attempts:
                self._unreported[owner] = outcome.repaired
                return False
        elif outcome.state == WELL and outcome.repaired:
            outcome.state = REPAIRED
        if outcome.state in {FAILED, DIFFERS}:
            is_known = self._reported.get(owner) == outcome.problems
            self._reported[owner] = outcome.problems
            return bool(outcome.repaired) or not is_known
        self._reported.pop(owner, None)
        return bool(outcome.repaired)

    def _look_back(self, now_s: float) -> None:
        """Delete again what was restored for an attachment that its runtime was just deleting.

        An attachment that is not cached may also be on its way back, by another ADD: it gets time for that.
        """
        for owner, (outcome, times) in list(self._restored.items()):
            if times[0] > now_s:
                continue
            times.pop(0)
            if self._read(owner):
                outcome.state = REPAIRED
            elif outcome.state != GONE:
                outcome.state, times[:] = GONE, [now_s + _ADD_MAY_TAKE_S]
            else:
                undo_if_deleted(self._runtime, outcome, self._conf_folder)
                times.clear()
                if outcome.state == FAILED:
                    self._report(Round(_DELETED, [outcome], 1, 0.0))
            if not times:
                del self._restored[owner]


def _owner(entry: Entry) -> Owner:
    return Owner(entry.network, entry.container_id, entry.ifname)


def _summary(reasons: list[str]) -> str:
    texts = list(dict.fromkeys(reasons))
    more = len(texts) - _MOST_TEXTS
    return "; ".join([*texts[:_MOST_TEXTS], *([f"and {more} more"] if more > 0 else [])])


@contextmanager
def _only_one() -> Iterator[None]:
    files.ensure_directory(_LOCK.parent)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(_LOCK, 0))
        except CniError as error:
            if error.code != Code.TRY_AGAIN:
                raise
            raise CniError(
                Code.TRY_AGAIN,
                "another pycni watch repairs on this host",
                f"{error.details}. Stop it first, or use --dry-run.",
            ) from error
        yield


@contextmanager
def _heeding_signals(end: Callable[[int], None]) -> Iterator[int]:
    """Call `end` at SIGTERM and SIGINT. Yield a descriptor that becomes readable then."""
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = {number: signal.signal(number, lambda received, _: end(received)) for number in _SIGNALS}
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        for fd in (reader, writer):
            with suppress(OSError):
                os.close(fd)
