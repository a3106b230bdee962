"""Verdict on a combined image: rows of statistics, which the run's kernel wrote, judged by limits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from campaign.camera.model import Camera
from campaign.errors import UsageError
from campaign.journal.outcome import Outcome
from campaign.journal.plan import Plan
from campaign.kinds import table
from campaign.planning import order
from campaign.verification import derive, judging, limits, parquet
from campaign.verification.lines import Finding, Line, Verdict, findings
from campaign.verification.rows import Rows, join
from campaign.wording import count

#: Limits where the operator names none, and places that are named of each verdict.
DEFAULT: Final = "ours"
SHOWN: Final = 20
#: Format of tables of rows.
_FORMAT: Final = "ArrowAstropy"


@dataclass(frozen=True)
class Verification:
    """Lines of a run, judged."""

    #: Name of the limits, and the kind of image.
    limits: str
    kind: str
    #: RUNs of the image.
    runs: Sequence[str]
    lines: Sequence[Line]
    #: Metrics without a limit.
    unjudged: Sequence[str]
    #: Exposures by role.
    exposures: dict[str, int]

    @property
    def verdict(self) -> Verdict:
        """The worst of the lines; a place without a value is one that warns."""
        found = {line.verdict for line in self.lines}
        if Verdict.FAIL in found:
            return Verdict.FAIL
        return Verdict.WARN if found - {Verdict.PASS} else Verdict.PASS

    def findings(self, verdict: Verdict) -> list[Finding]:
        """Name the places with a verdict, the worst first."""
        return findings(self.lines, [verdict])

    @property
    def dead(self) -> dict[str, list[str]]:
        """Tests without a value, by place; of pairs of amplifiers those of which neither is named."""
        found = defaultdict[str, list[str]](list)
        none = [line for line in self.lines if line.verdict is Verdict.NO_VALUE]
        for line in (one for one in none if " " not in one.amplifier):
            found[line.where].append(line.test)
        for line in (one for one in none if " " in one.amplifier):
            if not any(f"{line.detector_name} {one}" in found for one in line.amplifier.split()):
                found[line.where].append(line.test)
        return {where: sorted(set(tests)) for where, tests in found.items()}

    def texts(self) -> Iterator[str]:
        """Say it, each line behind a word."""
        roles = ", ".join(f"{n} {role or 'without a role'}" for role, n in self.exposures.items())
        yield f"verified    {self.kind} of {' and '.join(self.runs)}, by {roles}; limits {self.limits}"
        many = Counter(line.verdict for line in self.lines)
        numbers = ", ".join(f"{many[verdict]} {verdict}" for verdict in Verdict)
        yield f"verdict     {self.verdict}: {count(len(self.lines), 'line')}: {numbers}"
        for verdict in (Verdict.FAIL, Verdict.WARN):
            found = self.findings(verdict)
            yield from (f"{verdict:12}{_text(one)}" for one in found[:SHOWN])
            if len(found) > SHOWN:
                yield f"{verdict:12}{len(found) - SHOWN} more places; --json has all"
        dead = self.dead
        for where, tests in list(dead.items())[:SHOWN]:
            yield f"no value    {where}: {', '.join(tests)}"
        if len(dead) > SHOWN:
            yield f"no value    {len(dead) - SHOWN} more places; --json has all"
        if self.unjudged:
            yield f"not judged  {', '.join(self.unjudged)}: the limits have none for them"

    def plain(self) -> dict[str, Any]:
        """Give it as plain data: counts, findings, and all lines that do not pass."""
        many = Counter(line.verdict for line in self.lines)
        found = [(verdict, one) for verdict in (Verdict.FAIL, Verdict.WARN) for one in self.findings(verdict)]
        return {
            "verdict": self.verdict,
            "limits": self.limits,
            "kind": self.kind,
            "runs": list(self.runs),
            "exposures": self.exposures,
            "counts": {str(verdict): many[verdict] for verdict in Verdict},
            "findings": [
                {"verdict": verdict, "test": one.test, "role": one.role, "where": one.where, "lines": one.lines}
                for verdict, one in found
            ],
            "no_value": self.dead,
            "lines": [line.plain() for line in self.lines if line.verdict is not Verdict.PASS],
            "unjudged": list(self.unjudged),
        }


def _text(found: Finding) -> str:
    """Say where a test fails or warns, and the worst line there."""
    line, rest = found.line, str(found.line).partition(": ")[2]
    if found.where == line.where:
        return rest
    head = f"{found.test} {found.kind}{f' ({found.role})' if found.role else ''}, {found.where}"
    return f"{head}: {count(found.lines, 'line')}, the worst {line.where}: {rest.partition(f', {line.where}: ')[2]}"


def is_verified(plan: Plan) -> bool:
    """Whether a run's products are rows to be judged."""
    kind = table.of_dataset(plan.product)
    return kind is not None and kind.datasets[plan.product].storage_class == _FORMAT


def named(text: str) -> str:
    """Give the name of packaged limits as it is, and the whole path of a file."""
    return text if not text or text in limits.known() else str(Path(text).absolute())


def require(plan: Plan, camera: Camera, text: str) -> None:
    """Check the operator's limits before anything is claimed.

    Raises
    ------
    ConfigurationError
        They cannot be read.
    UsageError
        The run verifies nothing.
    """
    if is_verified(plan):
        limits.load(text or DEFAULT, camera)
    elif text:
        do = "leave --limits out, or submit bps_verify_bias, bps_verify_dark, bps_verify_flat_r, ..."
        raise UsageError(f"--limits {text}: {plan.product} is made, not verified", do=do)


def judge(plan: Plan, outcome: Outcome, camera: Camera) -> Verification | None:
    """Judge the rows of a run that verifies; `None` of any other, and where no table was made.

    Raises
    ------
    ConfigurationError, RowsUnreadable
        The limits, or a table, cannot be read.
    """
    if not is_verified(plan):
        return None
    done = [task for task in plan.tasks if task.name in outcome.published]
    paths = [Path(o.path) for task in done for o in task.outputs if o.type == plan.product]
    if not paths:
        return None
    given = order.read(plan.folder).limits if (plan.folder / order.NAME).is_file() else ""
    chosen = limits.load(given or DEFAULT, camera)
    rows = join(parquet.read(path) for path in paths)
    kind = str(next(group.config["kind"] for group in plan.groups if "kind" in group.config))
    rows = join([rows, _derived(plan, rows, kind)])
    exposures = rows.where(rows.exposure > 0)
    roles = sorted({*zip(exposures.role.list(), exposures.exposure.tolist(), strict=True)} - {("", 0)})
    of_role = Counter(role for role, _ in roles if role)
    return Verification(
        chosen.name,
        kind,
        sorted({str(one["run"]) for one in plan.calibrations if one["type"] == kind}),
        judging.judge(rows, chosen, camera),
        judging.without_limits(rows, chosen),
        dict(of_role),
    )


def _derived(plan: Plan, rows: Rows, kind: str) -> Rows:
    """Derive rows from rows; exposures of a failed task are absent."""
    frames = [task.job for task in plan.tasks if "exposures" in task.job.parameters]
    planned = {
        (e, int(job.detector)) for job in frames if job.detector is not None for e in job.parameters["exposures"]
    }
    times = {
        e: float(t)
        for job in frames
        for e, t in zip(job.parameters["exposures"], job.parameters["exposure_times"], strict=True)
    }
    lit = kind == "flat" and all(t > 0 for t in times.values())
    return derive.derive(rows, {kind: planned}, times if lit else {})
