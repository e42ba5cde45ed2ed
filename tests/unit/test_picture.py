"""The picture of `pycni show`: everything is in it, in place, and no text is taken for markup."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

from cni.cli.picture import draw
from cni.runtime.inventory import Inventory
from cni.runtime.observe import Attached, HostLink, PublishedPort

SVG = "{http://www.w3.org/2000/svg}"
PORT = PublishedPort("tcp", "", 8080, 80, ("10.0.0.0/8",))
BACK = Inventory(
    "back",
    subnets=("10.2.0.0/24",),
    bridges=(HostLink("back0", is_up=True, addresses=("10.2.0.1/24",)),),
    attached=(
        Attached(
            "id-of-web", "eth1", netns_state="alive", container_name="web", published_names=("web", "api")
        ),
        Attached("id-of-db", "eth0", netns_state="gone", problems=("its address is missing",)),
    ),
)
FRONT = Inventory(
    "front",
    subnets=("10.3.0.0/24",),
    bridges=(HostLink("front0", is_there=False),),
    attached=(
        Attached("id-of-web", "eth0", "", "alive", ("10.3.0.2/24",), ports=(PORT,), container_name="web"),
    ),
)


def read(picture: str) -> ET.Element:
    return ET.fromstring(picture)  # noqa: S314 - our own document


def texts(picture: str) -> list[str]:
    return [each.text or "" for each in read(picture).iter(f"{SVG}text")]


def test_everything_is_drawn() -> None:
    shown = texts(draw([BACK, FRONT]))
    assert shown[:2] == ["Networks and containers", "2 networks, 2 containers, 1 published port"]
    for expected in (
        "back", "bridge back0", "10.2.0.1/24", "front", "bridge front0, not made yet", "10.3.0.0/24",
        "web", "eth0 10.3.0.2/24", "eth1", "names web, api",
        "host:8080 \N{RIGHTWARDS ARROW} 80/tcp for 10.0.0.0/8",
        "id-of-db (namespace is gone)", "its address is missing",
    ):  # fmt: skip
        assert shown.count(expected) == 1, expected


def test_a_line_leads_from_the_network_to_the_interface() -> None:
    picture = read(draw([BACK, FRONT]))
    dots = {(each.get("class"), float(each.get("cy", ""))) for each in picture.iter(f"{SVG}circle")}
    lines = [(each.get("class", ""), each.get("d", "")) for each in picture.iter(f"{SVG}path")]
    ends = {(kind.replace("line n", "f"), float(path.rsplit(" ", 1)[1])) for kind, path in lines}
    assert len(lines) == 3
    assert ends == dots
    # Each starts within the card of its network.
    cards = [each for each in picture.iter(f"{SVG}rect") if each.get("class") == "card"][:2]
    for kind, path in lines:
        card = cards[int(kind[-1])]
        top = float(card.get("y", ""))
        assert top < float(re.findall(r"M\d+ ([\d.]+)", path)[0]) < top + float(card.get("height", ""))


def test_cards_do_not_overlap_and_the_page_holds_them() -> None:
    picture = read(draw([BACK, FRONT]))
    bottom = float(picture.get("viewBox", "").split()[3])
    columns: dict[str, list[tuple[float, float]]] = {}
    for each in picture.iter(f"{SVG}rect"):
        if each.get("class") == "card":
            span = float(each.get("y", "")), float(each.get("y", "")) + float(each.get("height", ""))
            columns.setdefault(each.get("x", ""), []).append(span)
    assert [len(each) for each in columns.values()] == [2, 2]
    for spans in columns.values():
        assert all(above[1] < below[0] for above, below in pairwise(spans))
        assert spans[0][0] > 0
        assert spans[-1][1] < bottom


def test_texts_are_no_markup_and_end_with_their_card() -> None:
    name = '<script>"&\x1b[31m' + "x" * 100
    picture = draw([Inventory(name, attached=(Attached("c1", "eth0", problems=(name,)),))])
    assert "<script" not in picture
    assert "\x1b" not in picture
    shown = texts(picture)[2:]
    assert all(len(each) < 60 for each in shown)
    [problem] = [each for each in read(picture).iter(f"{SVG}text") if each.get("class") == "wrong"]
    # The whole text appears under the pointer.
    assert len(problem[0].text or "") > 100


def test_nothing_configured_is_a_picture_too() -> None:
    assert texts(draw([])) == ["Networks and containers", "0 networks, 0 containers, 0 published ports"]
