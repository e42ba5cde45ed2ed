"""The targets, and whether a run has reached them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench import names, networks
from bench.scenes import CHAIN, FLAT, FULL, IPAM, LISTED, NAMES, VERSION, title_of, title_of_names
from bench.sides import AARDVARK, ACK, COLD, GONE, IPTABLES, NFTABLES, WARM

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from bench.networks import Network
    from bench.rows import Row

REACHED, MISSED, UNKNOWN = "reached", "not reached", "not measured"
# 55 MiB, with all plugins loaded.
MEMORY_KIB = 55 * 1024
_NAMED_VERBS = {
    "ADD": "ADD until the name is answered",
    names.AGAIN: "CPU of a query",
    names.UNKNOWN: "CPU of a query for an unknown name",
}
# ADD beside so many attachments by ADD beside none.
_MOST_GROWTH = 1.5


class Target(NamedTuple):
    """A least ratio for each backend; "" is for work without any. `row` is what a row must say.

    The ratio is to the row of the suite `than`; "" is for Go.
    """

    title: str
    row: Mapping[str, Any]
    least: Mapping[str, float]
    than: str = ""


class Verdict(NamedTuple):
    """A target and the result of a run, both as words."""

    title: str
    backend: str
    wanted: str
    seen: str
    state: str


def _chain(verb: str, **more: Any) -> dict[str, Any]:
    answer = GONE if verb == "DEL" else ""
    usual = {"work": CHAIN, "at_once": 1, "there": 0, "rules": 0, "suite": WARM}
    return usual | {"verb": verb, "answer": answer} | more


def _ipam(verb: str) -> dict[str, Any]:
    return {"work": IPAM, "there": 10_000, "verb": verb, "suite": WARM}


def _listed(network: Network, verb: str) -> dict[str, Any]:
    answer = GONE if verb == "DEL" else ""
    return {"work": LISTED, "scene": title_of(network), "verb": verb, "suite": WARM, "answer": answer}


def _named(there: int, verb: str) -> dict[str, Any]:
    return {"work": NAMES, "scene": title_of_names(there), "verb": verb, "suite": WARM}


def _of_names(than: str, least_of: Mapping[int, Mapping[str, float]]) -> Iterator[Target]:
    for there, of_verbs in least_of.items():
        for verb, least in of_verbs.items():
            title = f"{names.PLUGIN}, {there:,} names there, {_NAMED_VERBS[verb]}"
            title += f", by {than}" if than else ""
            yield Target(title, _named(there, verb), {"": least}, than)


def _both(nftables: float, iptables: float) -> dict[str, float]:
    return {NFTABLES: nftables, IPTABLES: iptables}


TARGETS = (
    Target("ADD", _chain("ADD"), _both(10, 6)),
    Target('DEL, answer at "link gone"', _chain("DEL"), _both(25, 20)),
    Target("DEL, waiting for the acknowledgement", _chain("DEL", answer=ACK), _both(5, 5)),
    Target("ADD, 32 at once", _chain("ADD", at_once=32), _both(10, 6)),
    Target("DEL, 32 at once", _chain("DEL", at_once=32), _both(15, 15)),
    Target("ADD, 1,000 attachments there", _chain("ADD", there=1000), _both(6, 5)),
    Target("DEL, 1,000 attachments there", _chain("DEL", there=1000), _both(30, 15)),
    Target("VERSION", {"work": VERSION, "suite": WARM}, {"": 3}),
    Target("host-local alone, 10,000 leases, ADD", _ipam("ADD"), {"": 50}),
    Target("host-local alone, 10,000 leases, DEL", _ipam("DEL"), {"": 50}),
    Target("ADD without a server", _chain("ADD", suite=COLD), _both(0.25, 0.25)),
    *(
        Target(f"{network.title}, {verb}", _listed(network, verb), least)
        for network in networks.read()
        for verb, least in network.least.items()
    ),
    *_of_names("", names.LEAST),
    *_of_names(AARDVARK, names.LEAST_OF_AARDVARK),
)


def find_row(rows: Iterable[Row], wanted: Mapping[str, Any]) -> Row | None:
    """Return the row that has all wanted values."""
    fits = (row for row in rows if all(getattr(row, key) == value for key, value in wanted.items()))
    return next(fits, None)


def judge(rows: list[Row], memory: list[dict[str, Any]]) -> list[Verdict]:
    """Compare a run with all targets."""
    verdicts = [
        _verdict(target, backend, least, _ratio(rows, target, backend))
        for target in TARGETS
        for backend, least in target.least.items()
    ]
    return [*verdicts, _flat_verdict(rows), _memory_verdict(memory)]


def _ratio(rows: list[Row], target: Target, backend: str) -> float | None:
    row = find_row(rows, {**target.row, "backend": backend})
    if row is None or not target.than:
        return row.ratio if row else None
    other = find_row(rows, {**target.row, "suite": target.than})
    return other.median_ms / row.median_ms if other else None


def _verdict(target: Target, backend: str, least: float, ratio: float | None) -> Verdict:
    wanted = f"at least {least:g}x"
    if ratio is None:
        return Verdict(target.title, backend, wanted, "", UNKNOWN)
    return Verdict(target.title, backend, wanted, show_ratio(ratio), REACHED if ratio >= least else MISSED)


def _flat_verdict(rows: list[Row]) -> Verdict:
    title, wanted = f"ADD beside {FULL.beside:,} attachments, by ADD beside none", f"at most {_MOST_GROWTH}x"
    none, many = (find_row(rows, {"work": FLAT, "verb": "ADD", "there": there}) for there in (0, FULL.beside))
    if none is None or many is None:
        return Verdict(title, NFTABLES, wanted, "", UNKNOWN)
    growth = many.median_ms / none.median_ms
    state = REACHED if growth <= _MOST_GROWTH else MISSED
    return Verdict(title, NFTABLES, wanted, f"{growth:.2f}x", state)


def _memory_verdict(memory: list[dict[str, Any]]) -> Verdict:
    what = "memory of the server and its idle workers, at rest"
    wanted = f"at most {to_mb(MEMORY_KIB):.1f} MB"
    if not memory or not memory[0]["together_kib"]:
        return Verdict(what, "", wanted, "", UNKNOWN)
    seen = memory[0]["together_kib"]
    return Verdict(what, "", wanted, f"{to_mb(seen):.1f} MB", REACHED if seen <= MEMORY_KIB else MISSED)


def show_ratio(ratio: float | None) -> str:
    """Return a ratio with two digits that count: "0.25x", "7.6x", "57x"; "" for none."""
    if ratio is None:
        return ""
    return f"{ratio:.2f}x" if ratio < 1 else f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"


def to_mb(kib: float) -> float:
    """Return MB (a million bytes) for KiB."""
    return kib * 1024 / 1e6
