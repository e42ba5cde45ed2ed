"""`pycni show --picture FILE.svg`: draw networks on the left, containers on the right, a line between them.

A picture is one file that browsers and Markdown pages show. It follows the reader's light or dark theme.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

from cni.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from cni.runtime.inventory import Inventory
    from cni.runtime.observe import Attached, HostLink, PublishedPort

_WIDTH, _MARGIN, _GAP = 960, 28, 18
_NETWORK_WIDTH, _CONTAINER_WIDTH = 320, 400
_CONTAINER_X = _WIDTH - _MARGIN - _CONTAINER_WIDTH
_TOP, _BOTTOM = 96, 40
_TITLE_HEIGHT, _LINE_HEIGHT, _PADDING = 40, 20, 12
# Mean widths of a letter, in lines and in titles. A text that is longer than its card by them is cut.
_LETTER_WIDTH, _TITLE_LETTER_WIDTH = 7.5, 9.5
_COLOURS = (
    ("#1f7a8c", "#4db6c6"), ("#b8651b", "#e8a35c"), ("#6c5b9e", "#a592dd"), ("#3f7d3a", "#7cc476"),
    ("#a83a5b", "#e0809c"), ("#3b64ad", "#82a8ea"), ("#7a6a1d", "#cdbb5f"), ("#5c6670", "#9aa5b1"),
)  # fmt: skip
_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; fill: #24292f; }
  .page { fill: #f6f8fa; } .card { fill: #ffffff; stroke: #d0d7de; }
  .title { font-size: 20px; font-weight: 600; } .name { font-size: 14px; font-weight: 600; }
  .quiet { fill: #656d76; } .wrong { fill: #c62828; }
  .pill { fill: #eef1f4; } .line { fill: none; stroke-width: 2; stroke-linecap: round; opacity: 0.75; }
"""
_DARK_STYLE = """
    text { fill: #e6edf3; } .page { fill: #0d1117; } .card { fill: #161b22; stroke: #30363d; }
    .quiet { fill: #8d96a0; } .wrong { fill: #ff7b72; } .pill { fill: #21262d; }
"""


@dataclass(slots=True)
class _Line:
    """A line of text in a card. An attachment's first line has the colour and the end of its connection."""

    text: str
    kind: str = ""
    network: int | None = None


@dataclass(slots=True)
class _Card:
    """A box with a title and lines. `y` is where it is placed."""

    title: str
    lines: list[_Line] = field(default_factory=list)
    network: int | None = None
    y: float = 0

    @property
    def height(self) -> float:
        return _TITLE_HEIGHT + len(self.lines) * _LINE_HEIGHT + (_PADDING if self.lines else 0)

    def y_of(self, number: int) -> float:
        """Return the middle of a line."""
        return self.y + _TITLE_HEIGHT + (number + 0.5) * _LINE_HEIGHT


def draw(inventories: Sequence[Inventory]) -> str:
    """Return an SVG document of networks and their attachments."""
    networks = [_network_card(number, each) for number, each in enumerate(inventories)]
    containers = _container_cards(inventories)
    heights = [sum(card.height + _GAP for card in cards) - _GAP for cards in (networks, containers)]
    inner = max(*heights, 0)
    for cards, height in zip((networks, containers), heights, strict=True):
        _place(cards, _TOP + (inner - height) / 2)
    ports = sum(len(attached.ports) for each in inventories for attached in each.attached)
    counts = (len(networks), "network"), (len(containers), "container"), (ports, "published port")
    subtitle = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts)
    body = [
        *_connections(networks, containers),
        *(_card(each, _MARGIN, _NETWORK_WIDTH) for each in networks),
        *(_card(each, _CONTAINER_X, _CONTAINER_WIDTH) for each in containers),
    ]
    return _document(subtitle, _TOP + inner + _BOTTOM, body)


def _network_card(number: int, inventory: Inventory) -> _Card:
    lines = []
    for each in inventory.bridges:
        is_working = each.is_there and each.is_up
        lines.append(_Line(f"bridge {each.name}{_state(each)}", "" if is_working else "quiet"))
        lines += [_Line(address) for address in each.addresses]
    # The address of a gateway tells the subnet.
    if not any(each.addresses for each in inventory.bridges):
        lines += [_Line(subnet, "quiet") for subnet in inventory.subnets]
    return _Card(inventory.name, lines, number)


def _state(bridge: HostLink) -> str:
    if not bridge.is_there:
        return ", not made yet"
    return "" if bridge.is_up else ", down"


def _container_cards(inventories: Sequence[Inventory]) -> list[_Card]:
    """Return a card for each container, near the networks that it is attached to."""
    attached: dict[str, list[tuple[int, Attached]]] = {}
    for number, inventory in enumerate(inventories):
        for each in inventory.attached:
            attached.setdefault(each.container_id, []).append((number, each))

    def middle(container_id: str) -> float:
        return sum(number for number, _ in attached[container_id]) / len(attached[container_id])

    return [_container_card(attached[each]) for each in sorted(attached, key=middle)]


def _container_card(attached: list[tuple[int, Attached]]) -> _Card:
    first = attached[0][1]
    pod = f"{first.pod_namespace}/{first.pod_name}" if first.pod_name else ""
    title = pod or first.container_name or first.container_id
    card = _Card(title if first.netns_state != "gone" else f"{title} (namespace is gone)")
    for number, each in sorted(attached, key=lambda pair: pair[1].ifname):
        card.lines.append(_Line(" ".join((each.ifname, *each.addresses)), network=number))
        if each.published_names:
            card.lines.append(_Line("names " + ", ".join(each.published_names), "quiet"))
        card.lines += [_Line(_port(port), "port") for port in each.ports]
        card.lines += [_Line(problem, "wrong") for problem in each.problems]
    return card


def _port(port: PublishedPort) -> str:
    address = f"[{port.host_ip}]" if ":" in port.host_ip else port.host_ip or "host"
    clients = f" for {', '.join(port.allow_from)}" if port.allow_from else ""
    return f"{address}:{port.host_port} \N{RIGHTWARDS ARROW} {port.container_port}/{port.protocol}{clients}"


def _place(cards: Iterable[_Card], y: float) -> None:
    for card in cards:
        card.y = y
        y += card.height + _GAP


def _connections(networks: Sequence[_Card], containers: Iterable[_Card]) -> Iterator[str]:
    """Yield a curve for each attachment; those of a network leave its card side by side."""
    ends: list[list[float]] = [[] for _ in networks]
    for card in containers:
        for number, line in enumerate(card.lines):
            if line.network is not None:
                ends[line.network].append(card.y_of(number))
    for network, ys in enumerate(ends):
        card = networks[network]
        for number, y in enumerate(ys):
            start = card.y + card.height * (number + 1) / (len(ys) + 1)
            left, right = _MARGIN + _NETWORK_WIDTH, _CONTAINER_X + _PADDING
            middle = (left + right) / 2
            yield (
                f'<path class="line n{network % len(_COLOURS)}" '
                f'd="M{left} {start:.1f} C{middle} {start:.1f} {middle} {y:.1f} {right} {y:.1f}"/>'
            )


def _card(card: _Card, x: float, width: float) -> str:
    colour = "" if card.network is None else f"f{card.network % len(_COLOURS)}"
    parts = [
        f'<rect class="card" x="{x}" y="{card.y:.1f}" width="{width}" height="{card.height:.1f}" rx="10"/>'
    ]
    if colour:
        parts.append(
            f'<rect class="{colour}" x="{x}" y="{card.y + 10:.1f}" width="4" '
            f'height="{card.height - 20:.1f}" rx="2"/>'
        )
    room = width - 4 * _PADDING
    parts.append(_text(x + 1.5 * _PADDING, card.y + 25, card.title, "name", room / _TITLE_LETTER_WIDTH))
    for number, line in enumerate(card.lines):
        y = card.y_of(number)
        if line.network is not None:
            parts.append(
                f'<circle class="f{line.network % len(_COLOURS)}" cx="{x + _PADDING}" cy="{y:.1f}" r="5"/>'
            )
        if line.kind == "port":
            length = min(len(line.text) * _LETTER_WIDTH + 16, room)
            parts.append(
                f'<rect class="pill" x="{x + 2 * _PADDING - 8}" y="{y - 9:.1f}" width="{length:.1f}" '
                'height="18" rx="9"/>'
            )
        left = x + (1.5 if card.network is not None else 2) * _PADDING
        parts.append(_text(left, y + 4.5, line.text, line.kind, room / _LETTER_WIDTH))
    return "\n".join(parts)


def _text(x: float, y: float, words: str, kind: str, most: float) -> str:
    """Return a text of at most so many letters; the whole text appears under the pointer."""
    whole, most = printable(words), int(most)
    if len(whole) <= most:
        return f'<text class="{kind}" x="{x}" y="{y:.1f}">{escape(whole)}</text>'
    cut = whole[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return f'<text class="{kind}" x="{x}" y="{y:.1f}">{escape(cut)}<title>{escape(whole)}</title></text>'


def _document(subtitle: str, height: float, body: Iterable[str]) -> str:
    light, dark = (
        "".join(
            f"  .n{number} {{ stroke: {pair[theme]}; }} .f{number} {{ fill: {pair[theme]}; }}\n"
            for number, pair in enumerate(_COLOURS)
        )
        for theme in (0, 1)
    )
    style = f"{_STYLE}{light}  @media (prefers-color-scheme: dark) {{{_DARK_STYLE}{dark}  }}\n"
    title = "Networks and containers"
    label = f'"{title}: {subtitle}"'
    view = f"0 0 {_WIDTH} {height:.0f}"
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{view}" role="img" aria-label={label}>',
            f"<style>{style}</style>",
            f'<rect class="page" width="{_WIDTH}" height="{height:.0f}" rx="12"/>',
            f'<text class="title" x="{_MARGIN}" y="46">{title}</text>',
            f'<text class="quiet" x="{_MARGIN}" y="70">{escape(subtitle)}</text>',
            *body,
            "</svg>\n",
        )
    )
