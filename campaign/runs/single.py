"""Make one task of a run again by hand, apart from the run: its products go into a new folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from campaign.errors import UsageError
from campaign.jobs.file import JobFile
from campaign.jobs.launch import environment
from campaign.journal.plan import load


def make_one(folder: Path, task: str, debug: bool) -> tuple[int, Path]:
    """Make one task on this machine, in one process, with its output on the terminal.

    Parameters
    ----------
    folder : `Path`
        The run's.
    task : `str`
        ``<label>:<dataId>``.
    debug : `bool`
        Run under pdb, which is entered where an exception ends the task.

    Returns
    -------
    code : `int`
        0 made, 1 failed (the journal in the folder says why), 3 refused, 70 a defect.
    made : `Path`
        Folder of its products, job file and journal.

    Raises
    ------
    UsageError
        The run has no such task.
    """
    plan = load(folder / "plan.json")
    found = [(group, one) for group in plan.groups for one in group.tasks if one.name == task]
    if not found:
        some = ", ".join(one.name for one in plan.tasks[:4])
        raise UsageError(f"run {plan.run} has no task {task!r}", do=f"its tasks are {some}, ...")
    group, one = found[0]
    made = Path(tempfile.mkdtemp(prefix="campaign-rerun-"))
    outputs = {kind: str(made / Path(path).name) for kind, path in one.job.outputs.items()}
    config = {key: str(made) if key == "inputs_table" else value for key, value in group.config.items()}
    job = JobFile(
        kernel=group.kernel,
        run=plan.run,
        ranks=1,
        journal=str(made / "journal"),
        camera=plan.camera,
        config=config,
        files={key: plan.files[key] for keys in one.job.inputs.values() for key in keys},
        tasks=[replace(one.job, outputs=outputs)],
    )
    path = job.write(made / "job.json")
    tool = ["-m", "pdb", "-c", "continue"] if debug else []
    line = [sys.executable, "-P", *tool, "-m", "kernels.run", str(path)]
    return subprocess.run(line, env=environment(), check=False).returncode, made
