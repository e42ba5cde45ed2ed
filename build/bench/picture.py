"""Draw the summary of a run: times as fast as the Go plugins, on a logarithmic scale."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bench import networks
from bench.scenes import CHAIN, IPAM, LISTED, VERSION, title_of
from bench.sides import ACK, BACKENDS, COLD, GONE, NFTABLES, SINGLE, WARM
from bench.svg import WIDTH, LogScale, document, heading, text
from bench.targets import find_row, show_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bench.rows import Row

_TITLE = "Times as fast as the Go plugins"
_LEFT, _RIGHT = 270, 70
_TOP, _BOTTOM = 100, 54
_BAR, _GAP, _GROUP_GAP = 13, 3, 13


class Bar(NamedTuple):
    """One bar; `kind` is its class in the style sheet."""

    kind: str
    ratio: float


class Group(NamedTuple):
    """The bars of one measurement, and its label."""

    label: str
    bars: list[Bar]

    @property
    def height(self) -> int:
        """The height without the gap below."""
        return len(self.bars) * (_BAR + _GAP) - _GAP


def _chain(verb: str, **more: Any) -> dict[str, Any]:
    answer = GONE if verb == "DEL" else ""
    usual = {"work": CHAIN, "at_once": 1, "there": 0, "rules": 0, "suite": WARM}
    return usual | {"verb": verb, "answer": answer} | more


_LINES: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("ADD", _chain("ADD")),
    ("CHECK", _chain("CHECK")),
    ("DEL, answer at “link gone”", _chain("DEL")),
    ("DEL, waiting for the kernel", _chain("DEL", answer=ACK)),
    ("ADD, 32 at once", _chain("ADD", at_once=32)),
    ("DEL, 32 at once", _chain("DEL", at_once=32)),
    ("ADD, 1,000 attachments there", _chain("ADD", there=1000)),
    ("DEL, 1,000 attachments there", _chain("DEL", there=1000)),
    ("ADD, 10,000 foreign rules there", _chain("ADD", rules=10_000)),
    ("DEL, 10,000 foreign rules there", _chain("DEL", rules=10_000)),
    ("ADD, single-use workers", _chain("ADD", suite=SINGLE)),
    ("DEL, single-use workers", _chain("DEL", suite=SINGLE)),
    ("ADD, no server", _chain("ADD", suite=COLD)),
    ("DEL, no server", _chain("DEL", suite=COLD)),
    *(
        (f"{each.title}, {verb}", _chain(verb, work=LISTED, scene=title_of(each)))
        for each in networks.read()
        for verb in ("ADD", "DEL")
    ),
    ("VERSION", {"work": VERSION, "suite": WARM}),
    ("host-local alone, 10,000 leases", {"work": IPAM, "there": 10_000, "verb": "ADD", "suite": WARM}),
)


def draw(rows: list[Row], subtitle: str) -> str:
    """Return the picture as SVG, without bars that were not measured."""
    groups = [group for label, wanted in _LINES if (group := _group(rows, label, wanted)).bars]
    ratios = [bar.ratio for group in groups for bar in group.bars] or [1]
    margin = 10**0.05
    low, high = min(*ratios, 0.5) / margin, max(*ratios, 20) * margin
    scale = LogScale(low, high, _LEFT, WIDTH - _RIGHT)
    height = _TOP + sum(group.height + _GROUP_GAP for group in groups) + _BOTTOM
    parts = [*_frame(subtitle, height), *_grid(scale, height), *_bars(groups, scale)]
    return document(_TITLE, WIDTH, height, parts)


def _group(rows: list[Row], label: str, wanted: Mapping[str, Any]) -> Group:
    rows_of = [(backend, find_row(rows, {**wanted, "backend": backend})) for backend in ("", *BACKENDS)]
    bars = [Bar(backend or "both", row.ratio) for backend, row in rows_of if row and row.ratio]
    return Group(label, bars)


def _grid(scale: LogScale, height: int) -> Iterator[str]:
    """Yield the lines behind the bars; the line of the Go plugins is dashed."""
    bottom = height - _BOTTOM + 4
    for ratio in scale.ticks():
        x, kind = scale.place(ratio), "go" if ratio == 1 else "grid"
        yield f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 10}" y2="{bottom}"/>'
        yield text(x, bottom + 16, "Go" if ratio == 1 else f"{ratio:g}x", "quiet", "middle")


def _frame(subtitle: str, height: int) -> Iterator[str]:
    yield from heading(_TITLE, subtitle, height)
    yield text(WIDTH - _RIGHT, height - 12, "logarithmic; longer to the right is faster", "quiet", "end")
    legend = ((NFTABLES, NFTABLES), ("iptables", "iptables"), ("both", "no backend involved"))
    for index, (kind, label) in enumerate(legend):
        x = _LEFT + index * 100
        yield f'<rect class="{kind}" x="{x}" y="70" width="11" height="11" rx="2"/>'
        yield text(x + 17, 80, label, "quiet")


def _bars(groups: list[Group], scale: LogScale) -> Iterator[str]:
    y = _TOP
    for group in groups:
        yield text(_LEFT - 14, y + group.height / 2 + 4.5, group.label, "", "end")
        for bar in group.bars:
            start, end = sorted((scale.place(1), scale.place(bar.ratio)))
            width = max(end - start, 1)
            place = f'x="{start:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" rx="2"'
            yield f'<rect class="{bar.kind}" {place}/>'
            # The label of a bar to the left is on the right of the Go line, where there is space.
            yield text(end + 6, y + _BAR - 2.5, show_ratio(bar.ratio), "value")
            y += _BAR + _GAP
        y += _GROUP_GAP - _GAP
