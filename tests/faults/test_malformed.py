"""Item 27: templates, selections and site files with mistakes in them."""

from __future__ import annotations

from pathlib import Path

from tests.faults.conftest import Operator


def test_item_27_every_mistake_with_file_and_line(operator: Operator, tmp_path: Path) -> None:
    """All mistakes of a file at once, each with its line; nothing is submitted, exit code 3."""
    template = tmp_path / "mine.yaml"
    lines = ["pipelineYaml: p", "requestMemory: 2G", "submitPth: x", "payload:", "  inCollection: $NOWHERE"]
    template.write_text("\n".join([*lines, "  butlerConfig: ${REPO}", "  payloadName: n", ""]))
    said = operator.refuse(3, "submit", str(template))
    assert f"{template}: 3 problems" in said
    for place in (
        "mine.yaml:2: requestMemory: '2G' is not what is expected: integer (MiB)",
        "mine.yaml:3: unknown key submitPth",
        "mine.yaml:5: the variable NOWHERE is not set",
    ):
        assert place in said
    sites = tmp_path / "sites"
    sites.mkdir()
    (sites / "mine.yaml").write_text("name: mine\nfraction: lots\nscheduler:\n  partitoin: x\n")
    said = operator.refuse(3, "submit", "bps_bias", "--site", "mine", CAMPAIGN_SITES=str(sites))
    assert f"{sites}/mine.yaml:2: fraction: 'lots' is not right" in said
    assert f"{sites}/mine.yaml:4: scheduler.partitoin: there is no such setting\n    -> did you mean partition?" in said
    said = operator.refuse(3, "submit", "bps_bias", SELECTION_BIAS="exposure.day_obs=20241206 and and detector=0")
    assert "bps_bias.yaml:13 (SELECTION_BIAS): " in said and "^" in said
