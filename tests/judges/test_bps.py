"""The real ctrl_bps resolves upstream's 47 templates and the packaged ones as `campaign render` does, key by key.

Differences stand in a table of docs/templates.md, which this test reads.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import pytest

from campaign.template.files import BANDS
from campaign.template.resolve import TemplateErrors, resolve
from templates import ROOT as TEMPLATES
from tests.campaign.test_template_upstream import DATA, ENVIRONMENT, SHAPES, write
from tests.conftest import ROOT, typed
from tests.judges.needed import needs

needs("lsst-ctrl-bps")
pytestmark = [pytest.mark.processes, pytest.mark.soak]

SERVICE = "lsst.ctrl.bps.BaseWmsService"
PACKAGED = TEMPLATES / "cp_pipe" / "bps" / "templates"
#: Sections without a name of their own: payload, and what ctrl_bps adds.
UNNAMED = ("payload", "bps_defined", "bps_cmdline")
Key = tuple[str, ...]


def templates(folder: Path) -> Iterator[Path]:
    """Give files that ctrl_bps reads: it knows no Jinja."""
    yield from (write(folder, name) for name in sorted(SHAPES))
    yield from sorted(DATA.glob("bps_*.yaml"))
    yield from sorted(PACKAGED.glob("*.yaml"))
    for shared in sorted(PACKAGED.glob("*.j2")):
        for band in BANDS:
            path = folder / f"ours_{shared.name.removesuffix('.yaml.j2')}_{band}.yaml"
            path.write_text(jinja2.Template(shared.read_text()).render(band=band))
            yield path


def keys(section: Mapping[str, Any], above: Key = ()) -> Iterator[tuple[Key, Any]]:
    """Give the leaves of a configuration by the names under which a key is searched."""
    for name, value in section.items():
        below = () if not above and name in UNNAMED else (*above, name)
        if isinstance(value, Mapping):
            yield from keys(value, below)
        else:
            yield below, value


def theirs(path: Path) -> Any:
    """Have ctrl_bps resolve a file; its service does nothing."""
    from lsst.ctrl.bps.initialize import init_submission

    return init_submission(str(path), wms_service=SERVICE)


def found(config: Any, key: Key) -> Any:
    """Search a key as ctrl_bps does for a job of that task, group or site."""
    current = {"curvals": {f"curr_{key[0]}": key[1]}} if len(key) > 2 else {}
    return config.search(key[-1], current)[1]


def cleaned(text: str) -> str:
    return " ".join(text.replace("\\\n", " ").split())


def listed(text: str) -> list[str]:
    return list(dict.fromkeys(cleaned(part) for part in text.split(",")))


def placed(text: str, run: str) -> str:
    """What `submitPath` ought to be."""
    default = f"{os.environ['PWD']}/submit/"
    return text.replace("${outputRun}", run).replace(default, f"{os.environ['SCRATCH']}/submit/")


#: How our value follows from theirs, for keys of both whose values differ.
EXPLAINED: Mapping[str, Callable[[str, str], Any]] = {
    "inCollection": lambda text, run: listed(text),
    "dataQuery": lambda text, run: cleaned(text),
    "submitPath": placed,
}


def documented() -> set[str]:
    """Read the table's keys."""
    text = (ROOT / "docs" / "templates.md").read_text().partition("## Differences from ctrl_bps")[2]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`([^`]+)`", row.split("|")[1])}


def compared(path: Path) -> Iterator[tuple[str, str]]:
    """Give (key, what is wrong, or nothing where the difference is explained) of each difference."""
    config = theirs(path)
    answer = typed("render", str(path), "--set", f"timestamp={config['timestamp']}", "--json", environment={})
    assert answer.returncode == 0, answer.stderr
    ours = dict(keys(json.loads(answer.stdout)["values"]))
    from lsst.daf.butler import Config

    names = {key for key, _ in keys(Config(config).toDict())}
    for key in names ^ ours.keys():
        yield ".".join(key[: 2 if key[0] == "pipetask" else 1]), ""
    for key in names & ours.keys():
        value = found(config, key)
        if value == ours[key] and isinstance(value, bool) == isinstance(ours[key], bool):  # 2 and 2.0 are alike
            continue
        explain = EXPLAINED.get(key[-1])
        right = explain is not None and explain(value, config["outputRun"]) == ours[key]
        yield ".".join(key), "" if right else f"{value!r} there, {ours[key]!r} here"


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the variables that an operator exports, and no others."""
    for name in set(os.environ) - {"PATH", "HOME"}:
        monkeypatch.delenv(name)
    # ctrl_bps takes the first name, like `getpass`.
    more = {"SCRATCH": str(tmp_path / "scratch"), "PWD": str(tmp_path), "LOGNAME": "jroe"}
    for name, value in {**ENVIRONMENT, **more}.items():
        monkeypatch.setenv(name, value)
    return tmp_path


def test_every_key_resolves_alike(operator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, wrong, known = set(), [], documented()
    paths = list(templates(operator))
    assert len(paths) >= 47 + 7 + len(BANDS)
    for number, path in enumerate(paths):
        monkeypatch.setenv("SCRATCH", str(operator / f"scratch{number}"))  # some have the same outputRun
        for name in re.findall(r"SELECTION_\w+", path.read_text()):
            monkeypatch.setenv(name, f"instrument='LSSTComCam' and \\\n    {name.lower()}=1")
        for key, what in compared(path):
            seen.add(key)
            if what or key not in known:
                wrong.append(f"{path.name}: {key}: {what or 'is on one side only'}")
    assert not wrong, "\n".join(wrong)
    assert known == seen or sys.version_info < (3, 12)  # whose last ctrl_bps has fewer keys


def test_mistakes_that_ctrl_bps_lets_pass(operator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELECTION_BIAS", "exposure={campaign}")
    path = write(operator, "bps_bias")
    path.write_text(path.read_text().replace("project: ", "odd: '${TICKTE} {nothing}'\nproject: "))
    config = theirs(path)
    assert (config["odd"], config["dataQuery"]) == ("${TICKTE} ", "exposure=DM-48520")
    with pytest.raises(TemplateErrors) as refused:
        resolve(str(path), os.environ)
    assert "there is no variable TICKTE" in str(refused.value)
    assert "there is no key {nothing}" in str(refused.value)
    assert resolve(str(write(operator, "bps_bias")), os.environ).data_query == "exposure={campaign}"


def test_doubled_braces(operator: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELECTION_BIAS", "exposure=1")
    path = write(operator, "bps_bias")
    path.write_text(path.read_text().replace("project: ", "odd: '{{a}} {{{campaign}}} {{}}'\nproject: "))
    assert theirs(path)["odd"] == resolve(str(path), os.environ).find("odd") == "{a} {DM-48520} {}"
