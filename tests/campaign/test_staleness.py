"""Give the calibrations that a product was made from, by its provenance."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from campaign.planning.staleness import NONE, _had
from tests.campaign.plans import gang, plan


@pytest.mark.parametrize("kind", ["bias", "flatBootstrap", "flat2", "bias_2", "cti2d", "9x"])
@pytest.mark.parametrize("several", [False, True])
def test_a_kind_of_any_name_is_known_again(tmp_path: Path, kind: str, several: bool) -> None:
    """Be there digits in it, or one for each filter."""
    key = f"CALIB_{kind.upper()}"
    cards = {f"{key}_ID": "a", f"{key}_RUN": "r/1", "CALIB_DARK": "none", "TICKET": "none", "CALIB_PTC_ID": "p"}
    cards |= {f"{key}_1_ID": "b", f"{key}_1_RUN": "r/2"} if several else {}
    cards |= {"CALIB_PTC_RUN": "r/3", "CALIB_PTC_NAMED": "by the operator"}
    made = plan(tmp_path, [gang(tmp_path, 1, 1, 1)], {}, 1)
    (group,) = made.groups
    task = replace(group.tasks[0], job=replace(group.tasks[0].job, provenance=cards))
    made = replace(made, groups=[replace(group, tasks=[task])], calibrations=[{"type": kind}, {"type": "ptc"}])
    wanted = {kind.lower(): {("a", "r/1"), *({("b", "r/2")} if several else ())}, "dark": {NONE}}
    assert _had(made) == {0: wanted}
