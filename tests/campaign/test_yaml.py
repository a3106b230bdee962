"""One reader for all YAML: limits, and numbers that are not the same to everybody."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from campaign.camera import model as camera
from campaign.campaigns import document as plans
from campaign.documents import load_plain, parse, plain
from campaign.errors import CampaignError
from campaign.journal.campaigns import _steps
from campaign.kinds import defects
from campaign.problems import Problem
from campaign.template.resolve import resolve


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("0640", "0640"),  # 416 by YAML 1.1
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),  # 45000
        ("1:30.5", "1:30.5"),
        ("2024-12-06", "2024-12-06"),
        ("no", "no"),
        ("On", "On"),
        ("0b11", "0b11"),
        ("640", 640),
        ("-3", -3),
        ("0", 0),
        ("0x1F", 31),
        ("1.10", 1.1),
        ("2.5e+3", 2500.0),
        ("True", True),
        ("~", None),
    ],
)
def test_a_value_is_what_a_person_reads(written: str, value: Any) -> None:
    problems: list[Problem] = []
    tree = parse(f"a: {written}\nb: [{written}]", "x.yaml", problems)
    assert tree is not None and problems == []
    found = plain(tree)
    assert found == {"a": value, "b": [value]}
    assert type(found["a"]) is type(value)


def test_a_text_is_as_it_is_written(tmp_path: Path) -> None:
    problems: list[Problem] = []
    tree = parse("{a: 1.10, b: true, c: ~, d: [0640]}", "x.yaml", problems)
    assert tree is not None
    assert plain(tree, as_text=True) == {"a": "1.10", "b": "true", "c": "", "d": ["0640"]}


DEEP = "[" * 50_000 + "]" * 50_000
HOSTILE = {
    "deep": f"a: {DEEP}",
    "deep blocks": "".join(f"{' ' * n}a:\n" for n in range(1000)),
    "aliases": "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
    + "".join(
        f"{name}: &{name} [{','.join([f'*{before}'] * 10)}]\n"
        for before, name in zip("abcdefg", "bcdefgh", strict=True)
    ),
    "circle": "a: &a [*a]",
    "twice": "a: 1\na: 2",
    "tag": "a: !!python/object/apply:os.system [id]",
    "two documents": "a: 1\n---\nb: 2",
}
READERS: dict[str, Callable[[Path], Any]] = {
    "camera": camera.load,
    "plan": plans.read,
    "boxes": lambda path: defects.read_boxes(str(path), ()),  # type: ignore[arg-type]
    "template": lambda path: resolve(str(path), {}),
    "any": load_plain,
}


CASES = [(reader, text) for reader in READERS for text in ("deep", "twice")] + [("any", text) for text in HOSTILE]


@pytest.mark.parametrize(("reader", "text"), CASES)
def test_a_hostile_file_is_one_error(tmp_path: Path, reader: str, text: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(HOSTILE[text])
    with pytest.raises(CampaignError if reader != "any" else ValueError) as caught:
        READERS[reader](path)
    assert "file.yaml" in str(caught.value) or reader == "any"


def test_a_campaign_of_a_hostile_plan_has_no_steps(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text(HOSTILE["deep"])
    assert _steps(tmp_path) == 0
