"""The shape of the house: imports between rooms, sizes of modules, and nothing of one machine."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path

import pytest

from campaign.cli import root
from tests.campaign.test_plans import VARIABLES, written
from tests.campaign.test_state import Run, event

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("campaign", "kernels", "slurm", "templates")

# Where each library (or package of ours) may be imported; the standard library may be imported anywhere.
PLACES = {
    "campaign": ("campaign.*",),
    "kernels": ("kernels.*",),
    "slurm": ("slurm.*", "campaign.schedulers.*"),
    "templates": ("campaign.*",),
    "astropy": ("campaign.camera.translation", "campaign.formatter", "kernels.calibrations.isrtext"),
    "click": ("campaign.*",),
    "cryptography": ("campaign.schedulers.secure",),
    "dask": ("campaign.running.*", "campaign.schedulers.secure"),
    "dask_jobqueue": ("slurm.*",),
    "distributed": ("campaign.running.*", "campaign.schedulers.*", "slurm.workers"),
    "fitsio": ("kernels.*", "campaign.formatter"),
    "PIL": ("campaign.quality.canvas",),
    "jinja2": ("campaign.template.*", "slurm.*"),
    "lsst": ("campaign.butler.*", "campaign.formatter"),
    "mpi4py": ("kernels.run",),
    "numba": ("kernels.*",),
    "numpy": ("kernels.*", "campaign.*"),
    "packaging": ("campaign.cli.doctor",),
    "psycopg2": ("campaign.journal.database",),
    "pyarrow": ("campaign.verification.parquet", "kernels.verification.parquet"),
    "pydantic": ("campaign.*",),
    "rich": ("campaign.*",),
    "scipy": ("kernels.*", "campaign.verification.quantiles"),
    "yaml": ("campaign.*", "kernels.calibrations.isrtext"),
}

# Rooms of each package from the ground up; a room imports from those before it.  Single modules lie below all rooms,
# but for those on top.
ROOMS = {
    "campaign": (
        "jobs", "schedulers", "camera", "verification", "template", "journal", "kinds", "butler", "pipeline", "quality",
        "frames",
        "sites", "planning", "running", "federation", "certification", "imports", "runs", "simulation", "campaigns",
        "upkeep", "cli",
    ),
    "kernels": (
        "camera", "statistics", "transfer", "jobs", "fits", "calibrations", "isr", "products", "response",
        "verification", "simulation",
    ),
    "slurm": (),
    "templates": (),
}  # fmt: skip
ON_TOP = ("campaign.__main__", "kernels.run", "kernels.warm")

#: cfitsio interprets brackets, ``+1`` and ``$`` in a path, so it gets handles and files in memory.
BY_PATH = re.compile(r"""\bfitsio\.(?:FITS\((?!f?"(?:/proc/self/fd/|mem:))|read|write)""")

LONGEST_MODULE = 400
LONGEST_CLASS = 200
LONGEST_FUNCTION = 60

# Home directories, registry hosts and the like, which work on one machine only.
ELSEWHERE = re.compile(
    r"(?<![\w.}*])/(?:work|home|root|Users)/(?!\s)|(?:\.pythonhosted|\bpypi)\.org|--(?:extra-)?index-url"
)


def modules() -> Iterator[tuple[str, Path]]:
    """Give every module that is installed, as (dotted name, file); a package is ``<name>.__init__``."""
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            yield ".".join(file.relative_to(ROOT).with_suffix("").parts), file


MODULES = dict(modules())


def imports(module: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give the (line, top-level package) of every import, wherever in the module, by statement or by name."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, alias.name.split(".")[0]) for alias in names)
            case ast.ImportFrom(module=name, level=level):
                yield node.lineno, (module if level else str(name)).split(".")[0]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name.split(".")[0]


def misplaced(module: str, source: str) -> list[str]:
    """Name every import of a library outside its place."""
    return [
        f"{module}, line {line}: imports {library}"
        for line, library in imports(module, ast.parse(source))
        if library not in sys.stdlib_module_names
        and not any(fnmatchcase(module, place) for place in PLACES.get(library, ()))
    ]


def arrows(module: str, source: str, known: Collection[str]) -> Iterator[tuple[int, str]]:
    """Give the (line, module of ours) of every import of a module, by statement or by name, anywhere."""
    for node in ast.walk(ast.parse(source)):
        found: list[str] = []
        match node:
            case ast.Import(names=names):
                found = [alias.name for alias in names]
            case ast.ImportFrom(module=str(name), names=names, level=0):
                found = [name] if name in known else [f"{name}.{alias.name}" for alias in names]
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                found = [name]
        yield from ((node.lineno, name) for name in found if name in known and name != module)


def room(module: str) -> str:
    """The room of a module; empty for a single module below the rooms."""
    _, *rest = module.split(".")
    return rest[0] if len(rest) > 1 else ""


def floor(module: str) -> int:
    """How high a module lies in its package."""
    rooms = ROOMS[module.split(".")[0]]
    return len(rooms) + 1 if module in ON_TOP else (rooms.index(room(module)) + 1 if room(module) else 0)


def door(package: str, name: str) -> list[str]:
    """Modules that a room lets others import."""
    tree = ast.parse(MODULES[f"{package}.{name}.__init__"].read_text())
    (names,) = (node.value for node in tree.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node))
    return [str(name) for name in ast.literal_eval(names)]


def upwards(module: str, source: str) -> list[str]:
    """Name every import of a higher room, and every one past a room's door."""
    found = []
    for line, there in arrows(module, source, MODULES):
        package, name = there.split(".")[0], room(there)
        if package != module.split(".")[0] or (name and name == room(module)):
            continue
        if floor(there) > floor(module):
            found.append(f"{module}, line {line}: {there} lies above")
        if name and there.split(".")[2] not in door(package, name):
            found.append(f"{module}, line {line}: {there} is not for other rooms ({package}/{name}/__init__.py)")
    return found


def circles(edges: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Modules that import each other, if only by others."""
    found = []
    left = dict(edges)
    while left:  # whoever imports nothing that is left is in no circle
        free = [module for module, there in left.items() if not any(one in left for one in there)]
        if not free:
            break
        for module in free:
            del left[module]
    while left:  # repeat for modules that nobody imports then
        free = [module for module in left if not any(module in there for name, there in left.items() if name != module)]
        if not free:
            found.append(sorted(left))
            break
        for module in free:
            del left[module]
    return found


def too_long(module: str, source: str) -> list[str]:
    """Name a module, and every class and function in it, that is too long."""
    lines = len(source.splitlines())
    found = [f"{module}: {lines} lines"] if lines > LONGEST_MODULE else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            most = LONGEST_CLASS if isinstance(node, ast.ClassDef) else LONGEST_FUNCTION
            found += [f"{module}.{node.name}: {length} lines"] if length > most else []
    return found


@pytest.mark.parametrize("module", MODULES)
def test_imports_keep_to_the_layers(module: str) -> None:
    assert misplaced(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize("module", MODULES)
def test_arrows_go_down_and_through_doors(module: str) -> None:
    assert upwards(module, MODULES[module].read_text()) == []


@pytest.mark.parametrize(
    ("module", "statement", "why"),
    [
        ("campaign.console", "from campaign.journal.events import Event", "lies above"),
        ("campaign.journal.plan", "def f():\n    from campaign.planning import step", "lies above"),
        ("kernels.fits.raw", "if TYPE_CHECKING:\n    from kernels.isr.reader import Reader", "lies above"),
        ("kernels.products.combine", "import kernels.run", "lies above"),
        ("campaign.cli.step", "from campaign.butler import opening", "is not for other rooms"),
        ("campaign.cli.step", "import importlib\nimportlib.import_module('campaign.butler.opening')", "other rooms"),
    ],
)
def test_an_arrow_up_or_past_a_door_is_seen(module: str, statement: str, why: str) -> None:
    (found,) = upwards(module, statement)
    assert why in found


def test_rooms_are_known_and_have_doors() -> None:
    for package, rooms in ROOMS.items():
        assert sorted(rooms) == sorted({room(module) for module in MODULES if module.startswith(f"{package}.")} - {""})
        for name in rooms:
            there = [module for module in MODULES if module.startswith(f"{package}.{name}.")]
            assert {f"{package}.{name}.{one}" for one in door(package, name)} - {"campaign.cli.main"} <= {*there}


def test_no_module_imports_itself_by_others() -> None:
    edges = {module: {to for _, to in arrows(module, file.read_text(), MODULES)} for module, file in MODULES.items()}
    assert circles(edges) == []


def test_a_circle_is_seen() -> None:
    edges = {"a": ["b"], "b": ["c"], "c": ["b"], "d": ["a"]}
    assert circles(edges) == [["b", "c"]]


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("campaign.journal.plan", "import kernels.jobs.job"),
        ("campaign.journal.plan", "from kernels.jobs import job"),
        ("campaign.journal.plan", "def f():\n    from lsst.daf.butler import Butler"),
        ("campaign.journal.plan", "import importlib\nimportlib.import_module('dask.base')"),
        ("campaign.journal.plan", "import slurm"),
        ("kernels.products.combine", "from mpi4py import MPI"),
        ("kernels.run", "import campaign.errors"),
        ("slurm.jobs", "import numpy"),
        ("templates.__init__", "import yaml"),
        ("campaign.journal.plan", "import astropy.io.fits"),
    ],
)
def test_a_misplaced_import_is_seen(module: str, statement: str) -> None:
    assert len(misplaced(module, statement)) == 1


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("kernels.run", "from mpi4py import MPI"),
        ("campaign.butler.repository", "from lsst.daf.butler import Butler"),
        ("campaign.template.environment", "import jinja2"),
        ("campaign.journal.plan", "from . import errors"),
        ("slurm.__init__", "from .jobs import submit\nimport os.path"),
    ],
)
def test_an_import_in_its_place_passes(module: str, statement: str) -> None:
    assert misplaced(module, statement) == []


@pytest.mark.parametrize("module", MODULES)
def test_modules_classes_and_functions_are_short(module: str) -> None:
    assert too_long(module, MODULES[module].read_text()) == []


def test_what_is_too_long_is_seen() -> None:
    body = "    x = 1\n" * LONGEST_FUNCTION
    assert too_long("m", f"def f():\n{body}") == [f"m.f: {LONGEST_FUNCTION + 1} lines"]
    assert too_long("m", "class C:\n" + "    x = 1\n" * LONGEST_CLASS) == [f"m.C: {LONGEST_CLASS + 1} lines"]
    assert too_long("m", "x = 1\n" * (LONGEST_MODULE + 1)) == [f"m: {LONGEST_MODULE + 1} lines"]


@pytest.mark.parametrize("module", [name for name in MODULES if "fitsio" in MODULES[name].read_text()])
def test_cfitsio_gets_no_paths(module: str) -> None:
    assert BY_PATH.findall(MODULES[module].read_text()) == []


def test_a_path_for_cfitsio_is_seen() -> None:
    assert BY_PATH.search("with fitsio.FITS(path) as file") and BY_PATH.search("fitsio.read_header(path, 0)")
    assert not BY_PATH.search('fitsio.FITS("mem://", "rw")')


def texts() -> Iterator[Path]:
    """Give every file of the repository that is text."""
    files = [path for path in ROOT.iterdir() if path.is_file() and path.name != ".git"]
    for folder in (*PACKAGES, "tests", "docs", ".ci"):
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return (path for path in files if path.suffix not in {".png", ".fits", ".fz", ".gz"})


def test_nothing_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}, line {number}: {line.strip()}"
        for path in texts()
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if ELSEWHERE.search(line)
    ]
    assert found == []


def test_a_path_of_one_machine_is_seen() -> None:
    # Put together here, so that this file is not found by its own pattern.
    for text in ("home/me/frames", "work/x", "root/.config"):
        assert ELSEWHERE.search(f"open('/{text}')")
    assert ELSEWHERE.search("https://pypi" + ".org/simple")
    assert not ELSEWHERE.search("https://example.org/home/page")


#: Libraries that take long to import.
HEAVY = (
    "lsst", "sqlalchemy", "astropy", "dask", "distributed", "numba", "numpy", "PIL", "mpi4py", "pydantic", "yaml",
    "jinja2", "asyncio", "ssl",
)  # fmt: skip
#: Modules that a command is in, and the libraries that it needs.
SHORT = {
    "--help": (" ".join(root.MODULES), ()),
    "status": ("index", ("yaml",)),
    "errors": ("index", ("yaml",)),
    "logs isr": ("index", ()),
    "history x": ("report", ()),
    "sites": ("sites", ("pydantic", "yaml")),
    "render bps_bias": ("step", ("yaml",)),
    "plan mine.yaml --quick": ("plan", ("pydantic", "yaml")),
}


@pytest.mark.processes
@pytest.mark.parametrize("words", SHORT)
def test_a_short_command_imports_what_it_uses(words: str, tmp_path: Path) -> None:
    own, needed = SHORT[words]
    written(tmp_path)
    run = Run(tmp_path)
    run.write([event("isr:0,0", "failed", 1)])
    run.home.record("submit", "x", {})
    (run.folder / "logs").mkdir()
    (run.folder / "logs" / "isr.1.log").write_text("it said this\n")
    code = (
        "import sys\n"
        "from campaign.cli.root import main\n"
        f"sys.argv = ['campaign', *{words.split()!r}]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        f"print(*(name for name in {HEAVY!r} if name in sys.modules))\n"
        "print(*(name for name in sys.modules if name.startswith('campaign.cli.')))"
    )
    exported = {name: value.replace("$INSTRUMENT", "LSSTComCam") for name, value in VARIABLES.items()}
    places = {"REPO": str(tmp_path), "CAMPAIGN_HOME": str(run.home.path), "SCRATCH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | exported | places,
        cwd=tmp_path,
    )
    assert not done.returncode, done.stderr
    *_, loaded, modules = done.stdout.split("\n")[:-1]
    assert set(loaded.split()) == set(needed)
    assert {*modules.split()} == {f"campaign.cli.{module}" for module in ("root", *own.split())}


def test_every_command_is_found_in_its_module() -> None:
    for module in root.MODULES:
        import_module(f"campaign.cli.{module}")
    found = {name: command.callback.__module__ for name, command in root.cli.commands.items() if command.callback}
    assert found == {name: f"campaign.cli.{module}" for module, names in root.MODULES.items() for name in names}
