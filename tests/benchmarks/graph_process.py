"""One planning of a template from a repository, in a process of its own: CPU and memory of the graph alone."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from campaign.butler.repository import open_repository
from campaign.planning.order import Order
from campaign.planning.step import Options, load
from campaign.runs.submit import prepare
from campaign.simulation.simulate import Places
from tests.benchmarks.graph_data import variables

TEMPLATE = Path(__file__).parents[1] / "data" / "bps_isr.yaml"


def _status(field: str) -> float:
    """A field of memory of this process, MB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / 1e6


def main(folder: Path) -> None:
    """Plan, write the plan, and print the time and memory."""
    os.environ.update(variables(Places(folder / "repo")))
    options = Options({}, None, (), False, 1)
    with open_repository(os.environ["REPO"], writeable=False):
        pass  # imports, and the setup by the first Butler of a process, come before the measurement
    before, began, wall = _status("VmRSS"), time.process_time(), time.monotonic()
    step = load(str(TEMPLATE), os.environ, options)
    with open_repository(step.config.butler_config, writeable=False) as repository:
        plan, _ = prepare(step, repository, options)
    planned = time.process_time()
    Order.of(step, options, None, False)
    plan.folder.mkdir(parents=True)
    plan.write()
    found = {
        "tasks": len(plan.tasks),
        "cpu_s": planned - began,
        "written_cpu_s": time.process_time() - planned,
        "wall_s": time.monotonic() - wall,
        "before_mb": before,
        "more_mb": _status("VmHWM") - before,
        "plan_mb": (plan.folder / "plan.json").stat().st_size / 1e6,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
