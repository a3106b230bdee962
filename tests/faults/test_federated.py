"""Items 7 and 25 for a run split over sites: its driver is killed, and the next one fetches what is missing."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from campaign.journal.events import read
from tests.conftest import soak
from tests.faults.conftest import Operator
from tests.faults.test_kill_points import TASKS, Killed

FRACTIONS = {"usdf": 0.25, "frdf": 0.5, "ukdf": 0.25}


@pytest.fixture
def killed(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Killed:
    """Three sites on this machine, each with a process of its own."""
    folder = tmp_path / "sites"
    folder.mkdir()
    for name, fraction in FRACTIONS.items():
        text = f'name: {name}\nfraction: {fraction}\nscheduler: none\nscratch: "{tmp_path / "a scratch" / name}"\n'
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setenv("CAMPAIGN_SITES", str(folder))
    name = "".join(letter if letter.isalnum() else "_" for letter in request.node.name)
    return Killed(operator, name, "bps_bias", "--sites", "usdf,frdf,ukdf")


@pytest.mark.parametrize("point", ["share-committed", *map(soak, ("run-started", "products-ingested"))])
def test_item_07_the_driver_of_several_sites_is_killed(killed: Killed, point: str) -> None:
    assert killed.submit(point) == -signal.SIGKILL, killed.err
    assert killed.restart() == 0, killed.err
    killed.require_whole(TASKS)
    events = read(killed.folder / "journal")
    if point == "share-committed":  # one site's was home; another's late result would come under an old token
        assert {e.token for e in events if e.event == "published" and e.site != "local"} == {1, 2}
