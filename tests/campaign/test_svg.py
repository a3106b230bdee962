"""Graphs as SVG: no arrow behind a box, no text wider than its box."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest

from campaign.pipeline import svg
from campaign.planning.reads import FIGURE_2, draw

NS = "{http://www.w3.org/2000/svg}"
#: An arrow from a to d leaps two columns, b and e lie in them.
LEAPING = {"a": (), "b": ("a",), "e": ("a",), "c": ("b", "a"), "d": ("c", "a", "b"), "f": ("a", "e")}


def curve(a: svg.Place, b: svg.Place, straight: bool) -> list[svg.Place]:
    """Points on a piece of an arrow."""
    (x0, y0), (x1, y1) = a, b
    if straight:
        return [(x0 + (x1 - x0) * k / 20, y0) for k in range(21)]
    c0, c1 = x0 + svg.GAP_X / 2, x1 - svg.GAP_X / 2
    weights = [((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3) for t in (k / 20 for k in range(21))]
    return [(p * x0 + q * c0 + r * c1 + s * x1, (p + q) * y0 + (r + s) * y1) for p, q, r, s in weights]


@pytest.mark.parametrize("needs", [LEAPING, FIGURE_2], ids=["leaping", "figure 2"])
def test_no_arrow_runs_behind_a_box(needs: dict[str, tuple[str, ...]]) -> None:
    laid = svg.layout(needs, {name: svg.Box(name) for name in needs})
    width, height = laid.box
    for name, others in needs.items():
        for other in others:
            points = svg.route(laid, other, name)
            for n, (a, b) in enumerate(pairwise(points)):
                for x, y in curve(a, b, bool(n % 2)):
                    behind = [
                        box for box, (x0, y0) in laid.places.items()
                        if x0 < x - 1e-6 and x + 1e-6 < x0 + width and y0 <= y <= y0 + height
                    ]  # fmt: skip
                    assert behind == [], f"{other} -> {name}"
                    assert 0 <= x <= laid.width and 0 <= y <= laid.height


#: Advance widths in DejaVu Sans, normal and bold, of the characters from blank to ~; thousandths of the size.
DEJAVU = {
    False: """
    318 401 460 838 636 950 780 275 390 390 500 838 318 361 318 337 636 636 636 636 636 636 636 636 636 636 337 337
    838 838 838 531 1000 684 686 698 770 632 575 775 752 295 295 656 557 863 748 787 603 787 695 635 611 732 684 989
    685 611 685 390 337 390 838 500 500 613 635 550 635 615 352 635 634 278 278 579 278 974 634 612 635 635 411 521
    392 634 592 818 592 592 525 636 337 636 838
    """,
    True: """
    348 456 521 838 696 1002 872 306 457 457 523 838 380 415 380 365 696 696 696 696 696 696 696 696 696 696 400 400
    838 838 838 580 1000 774 762 734 830 683 683 821 837 372 372 775 637 995 837 850 733 850 770 720 682 812 774
    1103 771 724 725 457 365 457 838 500 500 675 716 593 716 678 435 716 712 343 343 665 343 1042 712 687 716 716
    493 595 478 712 652 924 645 652 582 712 365 712 838
    """,
}


def measured(words: str, bold: bool, size: float) -> float:
    """Width in DejaVu Sans, which is wider than most."""
    widths = [int(n) for n in DEJAVU[bold].split()]
    return sum(widths[ord(letter) - ord(" ")] for letter in words) * size / 1000


def test_every_text_has_room_and_everything_is_said() -> None:
    real = {
        "crosstalk": (), "linearizer": (), "a very long name of a product": (), "bias": ("crosstalk",),
        "dark": ("bias", "crosstalk"), "flat": ("bias", "dark", "linearizer", "a very long name of a product"),
        "defects": ("bias", "dark", "flat"),
    }  # fmt: skip
    root = ET.fromstring(draw("LSSTComCam", real))
    total, found = float(root.get("width", 0)), []
    for group in root.iter(f"{NS}g"):
        rect = group.find(f"{NS}rect")
        assert rect is not None
        right, bottom = (float(rect.get(a, 0)) + float(rect.get(b, 0)) for a, b in (("x", "width"), ("y", "height")))
        for text in group.iter(f"{NS}text"):
            found.append(str(text.text))
            end = float(text.get("x", 0)) + measured(str(text.text), text.get("font-weight") == "bold", 12)
            assert end < right and float(text.get("y", 0)) < bottom, text.text
    assert all(word in " ".join(found) for word in ("very long name of a", "linearizer,"))
    for text in root.findall(f"{NS}text"):
        size = float(text.get("font-size", 12))
        assert float(text.get("x", 0)) + measured(str(text.text), size > 12, size) < total, text.text
    words = [str(text.text) for text in root.findall(f"{NS}text")]
    assert "differs" in words and any(re.match("An arrow leads to", word) for word in words)
