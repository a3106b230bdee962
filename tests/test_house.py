"""The picture and the table of the rooms show today's imports; every name that a page gives exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests import house
from tests.test_layout import MODULES, ROOMS, ROOT

#: b needs c, and c needs d: so the arrow from b to d is implied; a passes two rows on its way to d.
NEEDS = {"d": frozenset[str](), "c": frozenset("d"), "b": frozenset("cd"), "e": frozenset("b"), "a": frozenset("de")}


def test_the_picture_is_todays() -> None:
    assert house.FILE.read_text() == house.draw(), "python -m tests.house draws it anew"
    assert house.PAGE.read_text() == house.page(), "python -m tests.house writes the table anew"


def test_an_implied_arrow_is_left_out() -> None:
    assert house.reduced(NEEDS) == {"d": {*()}, "c": {"d"}, "b": {"c"}, "e": {"b"}, "a": {"e"}}


def test_arrows_lead_from_row_to_row() -> None:
    graph = house.graph(NEEDS)
    row = {name: k for k, names in enumerate(graph.rows) for name in names}
    assert {row[low] - row[high] for high, low in graph.links} == {1}
    assert sorted(row[lane] for lane in graph.lanes) == [1, 2, 3, 3]  # arrows from a to d, and from b to d


@pytest.mark.parametrize(("package", "room"), [(package, room) for package, rooms in ROOMS.items() for room in rooms])
def test_a_room_is_told_in_its_box(package: str, room: str) -> None:
    lines = house.wrapped(house.about(package, room), house.WIDTH - 14)
    assert 18 + 1 + house.LINE * len(lines) < house.HEIGHT


def classes(tree: ast.AST) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def defined(body: Iterable[ast.stmt]) -> set[str]:
    """Collect the names that statements define or import."""
    found: set[str] = set()
    for node in body:
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
            case ast.ImportFrom(names=names):
                found |= {alias.asname or alias.name for alias in names}
            case ast.Assign() | ast.AnnAssign():
                found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def known(name: str) -> bool:
    """Whether a dotted name is a module, a name in one, or a member of a class in one; or a path is there."""
    if "/" in name:
        return (ROOT / name).exists()
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        module, rest = ".".join(parts[:cut]), parts[cut:]
        file = MODULES.get(module) or MODULES.get(f"{module}.__init__")
        if file is None:
            continue
        tree = ast.parse(file.read_text())
        if not rest or rest[0] not in defined(tree.body):
            return not rest
        owner = classes(tree).get(rest[0])
        return len(rest) == 1 or (owner is not None and (rest[1] in member(owner)))
    return False


def member(owner: ast.ClassDef) -> set[str]:
    """Collect the members of a class and of its bases in our packages."""
    found = defined(owner.body)
    for base in owner.bases:
        for file in MODULES.values():
            if isinstance(base, ast.Name) and f"class {base.id}" in (text := file.read_text()):
                found |= member(classes(ast.parse(text))[base.id])
    return found


#: Dotted names and paths of ours in backticks; ``campaign.lock`` is a file of a repository.
NAME = re.compile(
    r"`((?!campaign.lock`)(?:campaign|kernels|slurm|templates|tests|docs)(?:\.\w+|/[\w./*-]*\w)+/?|Repository\.\w+)`"
)


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_every_name_on_a_page_exists(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    names = {name.replace("Repository.", "campaign.butler.repository.Repository.") for name in NAME.findall(text)}
    assert [name for name in sorted(names) if "*" not in name and not known(name)] == []


def test_a_name_that_is_gone_is_seen() -> None:
    assert known("campaign.butler.repository.Repository.certify") and known("kernels.run") and known("tests/house.py")
    for gone in ("campaign.planning.freezer", "campaign.runs.drive.drove", "campaign.butler.repository.Repository.x"):
        assert not known(gone)


def anchors(text: str) -> set[str]:
    """Collect the anchors of a page: those of its headings, as GitHub makes them, and explicit ones."""
    heads = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.M)
    made = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
    return made | set(re.findall(r'<a id="([\w-]+)"', text))


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_every_link_on_a_page_leads_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        there = page.parent / path if path else page
        if "://" not in link and not (there.exists() and (not anchor or anchor in anchors(there.read_text()))):
            broken.append(link)
    assert broken == []
