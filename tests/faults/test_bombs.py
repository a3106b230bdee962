"""Item 32: templates and selections that would take all time and memory there is."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import pytest

from campaign.butler.records import ExposureRecord, Raw, Selection
from campaign.kinds import bias
from campaign.planning.inputs import problems
from tests.faults.conftest import Operator

pytestmark = pytest.mark.processes

MINIMAL = "pipelineYaml: p\nsubmitPath: /s\npayload: {payloadName: n, butlerConfig: r, inCollection: a}\n"
BOMBS = {
    "memory": "a: {{ 'a' * 10000000000 }}",
    "numbers": "a: {{ 10 ** 9999999999 }}",
    "padding": "a: {{ 'a' | center(10000000000) }}",
    "loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "text": "{% for a in range(99999) %}# aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n{% endfor %}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_item_32_a_template_for_jinja_that_explodes(operator: Operator, tmp_path: Path, bomb: str) -> None:
    """Every way is refused by name, in seconds, and this process does not grow."""
    template = tmp_path / "bomb.yaml.j2"
    template.write_text(f"{MINIMAL}{BOMBS[bomb]}\n")
    operator.refuse(3, "submit", "bps_nothing")  # imports all that the command needs
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    said = operator.refuse(3, "submit", str(template))
    assert time.monotonic() - began < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10
    assert f"{template}: cannot be read: " in said
    assert "Jinja: " in said or "renders to more than 1 MiB" in said


def test_item_32_includes_without_end(operator: Operator, tmp_path: Path) -> None:
    """Each file includes the next one twice: 2^40 readings, were it not for the depth."""
    for n in range(40):
        (tmp_path / f"t{n}.yaml").write_text(f"includeConfigs: [t{n + 1}.yaml, t{n + 1}.yaml]\n")
    (tmp_path / "t40.yaml").write_text(MINIMAL)
    began = time.monotonic()
    said = operator.refuse(3, "submit", str(tmp_path / "t0.yaml"))
    assert time.monotonic() - began < 5
    assert "includeConfigs: more than 200 files are included" in said


def test_item_32_more_quanta_than_any_step_has() -> None:
    exposure = ExposureRecord(
        *("LSSTCam", 1, "a", "bias", "", "", 20250101, 1, "none", "", 0.0, 0.0), "2025-01-01", "2025-01-01"
    )
    raw = Raw(1, 0, "/raw", "", 1)
    found = problems(Selection((exposure,), (raw,) * 1_000_001), bias.KIND, False)
    assert found == ["the selection has 1000001 raws, a step can have 1000000"]
