"""Job scripts: one golden script a site, their effect in a real shell, and refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from slurm.scripts import (
    Script,
    array_script,
    gang_script,
    keep,
    launch,
    layout,
    log_of,
    write_commands,
)
from slurm.settings import Resources, Scheduler, ScriptError

GOLDEN = Path(__file__).parent / "golden"
BLANK = Path("/sps/my data/50% of it/it's here")
MODULE = ["-P", "-m", "mpi4py", "-m", "kernels.run"]

USDF = Scheduler(
    partition="milano",
    account="rubin:production",
    qos="normal",
    reservation="drp night",
    constraint="AMD&bigmem",
    memory="mem",
    node_cores=120,
    node_memory_mib=480000,
    signal_before_s=120,
    environment={"NUMBA_CACHE_DIR": "/lscratch/numba", "GREETING": 'it\'s "$HOME" `id`'},
    setup=["source /cvmfs/drp/setup.sh", "umask 002"],
    extra=["--exclusive", "--comment=a night's work"],
    python="/cvmfs/drp/bin/python",
)
FRDF = Scheduler(
    partition="htc", memory="mem-per-cpu", launcher="srun-pmix", signal_before_s=60, python="/pbs/throng/bin/python"
)
UKDF = Scheduler(memory="none", launcher="mpiexec", python="/opt/drp/bin/python", constraint="avx2")
BLANKS = Scheduler(
    partition="main",
    launcher="mpiexec",
    environment={"SCRATCH": str(BLANK / "scratch")},
    setup=[f'source "{BLANK}/setup it.sh"'],
    python=str(BLANK / "bin/python"),
    template=str(GOLDEN / "a site" / "own.sh.j2"),
)


def scripts() -> dict[str, Script]:
    """Write a script of each site."""
    gang = Resources(memory_mib=4001, cores=2, ranks=189, minutes=90)
    logs = Path("/scratch/run/logs")
    return {
        "usdf": gang_script(
            "r-bias-1", [USDF.python, *MODULE, "/scratch/run/jobs/bias.json"], logs / "bias.log", gang, USDF
        ),
        "usdf_array": array_script("r-flat-1", logs / "flat.commands", range(50, 60), logs / "flat.log", gang, USDF),
        "frdf": gang_script(
            "r-bias-1", [FRDF.python, *MODULE, "/scratch/run/jobs/bias.json"], logs / "bias.log", gang, FRDF
        ),
        "ukdf": gang_script(
            "r-bias-1",
            [UKDF.python, "-P", "-m", "kernels.run", "job.json"],
            logs / "bias.log",
            Resources(memory_mib=2048, minutes=1),
            UKDF,
        ),
        "ukdf_gang": gang_script("r-bias-1", [UKDF.python, *MODULE, "/job.json"], logs / "bias.log", gang, UKDF),
        "blanks": gang_script(
            "r-bias-1",
            [BLANKS.python, *MODULE, str(BLANK / "jobs/bias 1.json")],
            BLANK / "logs/bias 1.log",
            Resources(memory_mib=100, ranks=3, nodes=2),
            BLANKS,
        ),
        "blanks_array": array_script(
            "r-flat-1", BLANK / "a b.commands", range(3), BLANK / "logs/flat 1.log", Resources(100, ranks=2), BLANKS
        ),
    }


@pytest.mark.processes
@pytest.mark.parametrize("name", scripts())
def test_a_script_is_the_golden_one(name: str, tmp_path: Path) -> None:
    script = scripts()[name]
    assert str(script) == (GOLDEN / f"{name}.sh").read_text()
    assert script.unused == ()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_every_golden_script_is_tested() -> None:
    assert {path.stem for path in GOLDEN.glob("*.sh")} == set(scripts())


def test_an_option_that_no_template_uses_is_named(tmp_path: Path) -> None:
    template = tmp_path / "bare.sh.j2"
    template.write_text(
        '{% extends "slurm.sh.j2" %}{% block directives %}#SBATCH -p {{ site.partition }}\n{% endblock %}'
        "{% block setup %}{% endblock %}"
    )
    site = Scheduler(partition="p", qos="q", account="a", setup=["umask 2"], extra=["--x"], template=str(template))
    script = gang_script("n", ["true"], tmp_path / "n.log", Resources(1), site)
    assert script.unused == ("account", "qos", "setup", "extra")
    assert "#SBATCH -p p\n" in script
    assert "umask" not in script


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{% extends "slurm.sh.j2" %}{% block setup %}{{ site.fairy }}{% endblock %}', "fairy"),
        ("{% block setup %}\n{% if %}", r"own\.sh\.j2, line 2"),
        ('{{ refuse("ask for a project first") }}', "ask for a project first"),
        ('{% extends "pbs.sh.j2" %}', r"there is no template pbs\.sh\.j2"),
    ],
)
def test_a_fault_of_a_sites_template_is_told(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "own.sh.j2").write_text(text)
    with pytest.raises(ScriptError, match=words):
        gang_script("n", ["true"], tmp_path / "n.log", Resources(1), Scheduler(template=str(tmp_path / "own.sh.j2")))


def test_a_template_that_is_not_there_and_one_of_a_packaged_ones_name(tmp_path: Path) -> None:
    own = tmp_path / "slurm.sh.j2"
    with pytest.raises(ScriptError, match=r"slurm\.sh\.j2: No such file"):
        gang_script("n", ["true"], tmp_path / "n.log", Resources(1), Scheduler(template=str(own)))
    with pytest.raises(ScriptError, match=r"there is no template pbs\.sh\.j2"):
        gang_script("n", ["true"], tmp_path / "n.log", Resources(1), Scheduler(template="pbs"))
    own.write_text('{% extends "slurm.sh.j2" %}{% block setup %}echo mine\n{% endblock %}')
    assert "echo mine\n" in gang_script("n", ["true"], tmp_path / "n.log", Resources(1), Scheduler(template=str(own)))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"memory": "vmem"}, "memory is 'vmem', not one of mem, mem-per-cpu, none"),
        ({"launcher": "mpirun"}, "launcher is 'mpirun'"),
        ({"signal_before_s": -1}, "signal_before_s is -1"),
        ({"max_array": 0}, "max_array is 0"),
        ({"max_submit": 1.5}, "max_submit is 1.5"),
        ({"environment": {"A B": "x"}}, "'A B', which is no name"),
        ({"environment": {"X; rm -rf": "x"}}, "which is no name"),
        ({"extra": ["exclusive"]}, "'exclusive', which is no option"),
        ({"extra": ["--x\n#SBATCH --y"]}, "which is no option"),
    ],
)
def test_a_site_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ScriptError, match=words):
        Scheduler(**settings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"memory_mib": 0}, "memory_mib is 0"),
        ({"memory_mib": 1.5}, "memory_mib is 1.5"),
        ({"memory_mib": True}, "memory_mib is True"),
        ({"memory_mib": 1, "minutes": -1}, "minutes is -1"),
        ({"memory_mib": 1, "nodes": 2}, "2 nodes for 1 ranks"),
    ],
)
def test_resources_that_cannot_be(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ScriptError, match=words):
        Resources(**settings)


@pytest.mark.parametrize("name", ["", "a b", "a,b", "a\nb", "a|b", "a\tb"])
def test_a_name_that_slurms_lists_would_take_apart_is_refused(name: str) -> None:
    with pytest.raises(ScriptError, match="a job's name is"):
        gang_script(name, ["true"], Path("/x.log"), Resources(1), Scheduler())


def test_what_one_line_cannot_hold_is_refused(tmp_path: Path) -> None:
    for log in ("a\\b.log", "a\nb.log"):
        with pytest.raises(ScriptError, match="sbatch takes no path with"):
            gang_script("n", ["true"], tmp_path / log, Resources(1), Scheduler())
    with pytest.raises(ScriptError, match="holds a line end"):
        gang_script("n", ["echo", "a\nb"], tmp_path / "n.log", Resources(1), Scheduler())
    with pytest.raises(ScriptError, match="holds a line end"):
        write_commands(tmp_path / "n.commands", [["echo", "a\nb"]])


@pytest.mark.parametrize(
    ("resources", "site", "expected"),
    [
        (Resources(100), Scheduler(), (1, 1)),
        (Resources(100, ranks=9), Scheduler(), (1, 9)),
        (Resources(100, ranks=9), Scheduler(memory="mem-per-cpu"), (None, None)),
        (Resources(100, ranks=9, nodes=2), Scheduler(memory="none"), (2, 5)),
        (Resources(100, ranks=9, cores=2), Scheduler(node_cores=8), (3, 3)),
        (Resources(3000, ranks=9), Scheduler(node_cores=8, node_memory_mib=8000), (5, 2)),
        (Resources(3000, ranks=9, nodes=9), Scheduler(node_memory_mib=8000), (9, 1)),
    ],
)
def test_ranks_are_laid_out_over_nodes(
    resources: Resources, site: Scheduler, expected: tuple[int | None, int | None]
) -> None:
    assert layout(resources, site) == expected


def test_a_rank_that_fits_on_no_node_is_refused_with_both_numbers() -> None:
    site = Scheduler(node_cores=4, node_memory_mib=8000)
    with pytest.raises(ScriptError, match="a rank takes 9000 MiB and 1 cores, a node has 8000 MiB and 4 cores"):
        layout(Resources(9000), site)
    with pytest.raises(ScriptError, match="5 ranks a node do not fit"):
        layout(Resources(100, ranks=9, nodes=2), site)


def test_memory_is_in_whole_mib_as_the_site_wants_it(tmp_path: Path) -> None:
    def options(**site: Any) -> list[str]:
        script = gang_script("n", ["x"], tmp_path / "n", Resources(4001, cores=2, ranks=3, nodes=2), Scheduler(**site))
        return [line for line in script.splitlines() if "--mem" in line]

    assert options(memory="mem") == ["#SBATCH --mem=8002M"]
    assert options(memory="mem-per-cpu") == ["#SBATCH --mem-per-cpu=2001M"]
    assert options(memory="none") == []


def test_the_launcher_restates_cores() -> None:
    gang = Resources(100, cores=3, ranks=4)
    assert launch(gang, Scheduler()) == ["srun", "--mpi=pmi2", "--kill-on-bad-exit=1", "-n", "4", "-c", "3"]
    assert launch(gang, Scheduler(launcher="srun-pmix"))[1] == "--mpi=pmix"
    assert launch(gang, Scheduler(launcher="mpiexec", python="/a b/bin/python")) == ["/a b/bin/mpiexec", "-n", "4"]
    assert launch(Resources(100), Scheduler()) == []


def run(script: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script by the shell alone; Slurm's lines are comments to it."""
    return subprocess.run(
        ["bash", str(keep(script, folder / "it.log"))],
        capture_output=True,
        text=True,
        timeout=20,
        env={"PATH": os.environ["PATH"], **environment},
    )


@pytest.mark.processes
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r")), min_size=1, max_size=4),
    value=st.text(st.characters(codec="utf-8", exclude_characters="\0\n\r")),
)
def test_every_word_reaches_the_command_as_it_was(words: list[str], value: str, tmp_path: Path) -> None:
    site = Scheduler(environment={"VALUE": value})
    script = gang_script("n", ["printf", "%s\\n", *words], tmp_path / "n.log", Resources(1), site)
    assert run(script, tmp_path).stdout == "".join(f"{word}\n" for word in words)
    assert run(gang_script("n", ["printenv", "VALUE"], tmp_path / "n.log", Resources(1), site), tmp_path).stdout == (
        f"{value}\n"
    )
    commands = write_commands(tmp_path / "c d.commands", [["false"], ["printf", "%s\\n", *words]])
    array = array_script("n", commands, range(1, 2), tmp_path / "n.log", Resources(1), site)
    assert run(array, tmp_path, SLURM_ARRAY_TASK_ID="0").stdout == "".join(f"{word}\n" for word in words)


def test_an_array_over_the_sites_limit_is_refused(tmp_path: Path) -> None:
    commands = write_commands(tmp_path / "all.commands", [["true"]] * 4)
    with pytest.raises(ScriptError, match="big: an array of 4; the site's max_array is 3"):
        array_script("big", commands, range(4), tmp_path / "big.log", Resources(50), Scheduler(max_array=3))


@pytest.mark.processes
def test_an_element_without_a_command_fails(tmp_path: Path) -> None:
    commands = write_commands(tmp_path / "few.commands", [["true"]])
    array = array_script("n", commands, range(2), tmp_path / "n.log", Resources(1), Scheduler())
    done = run(array, tmp_path, SLURM_ARRAY_TASK_ID="1")
    assert (done.returncode, done.stderr) == (1, f"error: element 1 has no command in {commands}\n")


@pytest.mark.processes
def test_what_the_script_itself_scrubs_and_sets(tmp_path: Path) -> None:
    site = Scheduler(setup=["export OMP_NUM_THREADS=64"], environment={"MINE": "1"})
    script = gang_script("n", ["env"], tmp_path / "n.log", Resources(1), site)
    inherited = {"PMI_RANK": "3", "PMIX_ID": "x", "SBATCH_QOS": "q", "OMPI_X": "1", "SLURM_JOB_ID": "7"}
    environment = dict(line.split("=", 1) for line in run(script, tmp_path, **inherited).stdout.splitlines())
    assert environment.keys() & inherited.keys() == {"SLURM_JOB_ID"}
    threads = {environment[f"{name}_NUM_THREADS"] for name in ("OMP", "OPENBLAS", "NUMBA")}
    assert (threads, environment["PYTHONSAFEPATH"], environment["MINE"]) == ({"1"}, "1", "1")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("trap 'exit 0' TERM; kill -USR1 $PPID; sleep 5 >/dev/null 2>&1 & wait", 0),
        ("kill -USR1 $PPID; exec sleep 5", 124),
        ("trap 'exit 3' TERM; kill -USR1 $PPID; sleep 5 >/dev/null 2>&1 & wait", 124),
        ("exit 3", 3),
        ("exit 0", 0),
    ],
)
def test_the_warning_before_the_walltime_ends_the_command_and_says_so(command: str, code: int, tmp_path: Path) -> None:
    site = Scheduler(signal_before_s=90)
    script = gang_script("n", ["bash", "-c", command], tmp_path / "n.log", Resources(1, minutes=5), site)
    done = run(script, tmp_path)
    assert done.returncode == code, done.stderr
    assert ("error: 90 s are left of 5 min: the command is ended" in done.stderr) == ("USR1" in command)


@pytest.mark.processes
@pytest.mark.parametrize("signal_before_s", [0, 90])
@pytest.mark.parametrize(
    ("python", "module", "code", "said"),
    [
        ("/nowhere/bin/python", "json.tool", 3, "/nowhere/bin/python: No such file or directory: python of the site"),
        (sys.executable, "nosuch.run", 3, f"{sys.executable} has no package nosuch: python of the site"),
        (sys.executable, "json.tool", 2, ""),
    ],
)
def test_a_command_that_could_not_begin_says_what_is_lacking(
    python: str, module: str, code: int, said: str, signal_before_s: int, tmp_path: Path
) -> None:
    site = Scheduler(python=python, signal_before_s=signal_before_s)
    script = gang_script("n", [python, "-P", "-m", module, "--nosuch"], tmp_path / "n.log", Resources(1), site)
    done = run(script, tmp_path, SLURMD_NODENAME="node17")
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == bool(said)
    assert not said or errors[0].startswith(f"error: node17: {said}")


def test_a_script_is_kept_beside_its_log(tmp_path: Path) -> None:
    log = tmp_path / "new folder" / "gang.1.log"
    path = keep("echo it\n", log)
    assert path == log.with_name("gang.1.sh")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("echo it\n", 0o700)
    assert list(log.parent.iterdir()) == [path]
    assert log_of(log, 7) == log.with_name("gang.1.7.log")
