"""Parts of all pictures: SVG for light and dark pages, and a logarithmic scale.

No plotting library draws these pictures. This code needs no package and writes 7 KB for each picture.
- matplotlib 3.11: 11 packages, 176 MB, 3 s a picture, and no dark mode: each picture exists twice.
- plotly 7.1 (74 MB) and altair 6.3 (25 MB): they write SVG only through a browser engine, a further download.
- pygal 3.1 (5 MB): no dark mode, and its logarithmic bars do not start at 1, "as fast as Go".
- svgwrite 1.4: it writes single elements, as the functions below do, and is no longer developed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape, quoteattr

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

WIDTH = 860
_TICK_DIGITS = (1, 2, 5)
_STYLE = """
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; font-size: 13px; }
  text { fill: #24292f; }
  .page { fill: #ffffff; } .title { font-size: 18px; font-weight: 600; }
  .quiet { fill: #656d76; font-size: 12px; } .value { font-size: 12px; font-weight: 600; }
  .nftables { fill: #1f7a8c; stroke: #1f7a8c; } .iptables { fill: #e09f3e; stroke: #e09f3e; }
  .both { fill: #6c5b9e; stroke: #6c5b9e; } .theirs { fill: #57606a; stroke: #57606a; }
  rect[class] { stroke: none; }
  polyline[class] { fill: none; stroke-width: 2; stroke-linejoin: round; }
  polyline.theirs { stroke-dasharray: 6 4; }
  .grid { stroke: #d8dee4; } .go { stroke: #57606a; stroke-width: 1.5; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; } .page { fill: #0d1117; } .quiet { fill: #8d96a0; }
    .nftables { fill: #4db6c6; stroke: #4db6c6; } .iptables { fill: #e8b35c; stroke: #e8b35c; }
    .both { fill: #a592dd; stroke: #a592dd; } .theirs { fill: #9198a1; stroke: #9198a1; }
    .grid { stroke: #262c36; } .go { stroke: #9198a1; }
  }
"""


def document(label: str, width: int, height: int, parts: Iterable[str]) -> str:
    """Return a whole picture; `label` describes it for screen readers."""
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
        f"aria-label={quoteattr(label)}>\n<style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


def heading(title: str, subtitle: str, height: int) -> Iterator[str]:
    """Yield the background, the title and the subtitle."""
    yield f'<rect class="page" width="{WIDTH}" height="{height}" rx="8"/>'
    yield text(24, 34, title, "title")
    yield text(24, 54, subtitle, "quiet")


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """Return a line of text; `kind` is its class in the style sheet."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'


class LogScale:
    """Maps values `low` to `high` to coordinates `start` to `end`, equal steps for equal factors."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        self._low = math.log10(low)
        self._high = math.log10(high)
        self._start = start
        self._end = end

    def place(self, value: float) -> float:
        """Return the coordinate of a value."""
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Return the round values in the range: 1, 2 and 5 of each power of ten."""
        every = [digit * 10.0**power for power in range(-3, 7) for digit in _TICK_DIGITS]
        return [each for each in every if self._low <= math.log10(each) <= self._high]
