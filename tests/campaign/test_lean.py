"""The Butler's lean import: fewer modules, the same classes, in processes that have imported nothing yet."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from campaign.butler import lean
from tests.conftest import ROOT

#: Begins with threads that import what is deferred while the Butler is imported; then uses all that is deferred.
PROGRAM = """
import json, pickle, sys, threading
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

BROKEN = sys.argv[1] == "broken"
if BROKEN:  # as a Butler would be whose imports nobody foresaw
    import importlib.util
    resolve = importlib.util.resolve_name
    def refuse(name, package):
        if name == ".registry":
            importlib.util.resolve_name = resolve
            raise RuntimeError("not foreseen")
        return resolve(name, package)
    importlib.util.resolve_name = refuse

AT_ONCE = sys.argv[1] == "together"
def ours():
    import campaign.butler.repository
def table():
    from astropy.table import Table
    return Table({"a": [1]})["a"][0] == 1
def coordinates():
    import astropy.coordinates
    return type(astropy.coordinates) is ModuleType and astropy.coordinates.SkyCoord(1, 2, unit="deg").ra.deg == 1
def arrow():
    import pyarrow as pa, pyarrow.compute as pc
    return type(pa) is ModuleType and pc.sum(pa.array([1, 2])).as_py() == 3
if AT_ONCE:
    import astropy  # threads that begin it at the same time disturb one another, whoever imports
    start = threading.Barrier(3)
    def run(one):
        start.wait()
        return one()
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(run, (ours, arrow, ours))) == [None, True, None]
ours()
import lsst.daf.butler as butler
from lsst.daf.butler.queries.tree import make_column_literal
import lsst.utils.logging as logs
names = ("astropy.coordinates", "astropy.table", "psutil", "pyarrow", "pyarrow.compute", "structlog",
         "lsst.daf.butler.arrow_utils")
found = {"loaded": [name for name in names if name in sys.modules]}
found["is context"] = logs._is_structlog_logger(logs.getLogger("x"))

universe = butler.DimensionUniverse()
record = universe["instrument"].RecordClass(name="A", detector_max=4, visit_max=5, exposure_max=6, visit_system=0,
                                            class_name="C")
records = butler.DimensionRecordTable(universe["instrument"], [record])
import pyarrow as pa
assert isinstance(records.to_arrow(), pa.Table) and list(pickle.loads(pickle.dumps(records.to_arrow()))["name"])
assert [one.name for one in records] == ["A"]
from lsst.daf.butler.arrow_utils import TimespanArrowType
assert isinstance(TimespanArrowType(), pa.ExtensionType)
assert isinstance(pickle.loads(pickle.dumps(butler.Timespan(None, None))), butler.Timespan)

from lsst.daf.butler.datastore import stored_file_info as files
column = pa.table({"component": ["x", files.NULLSTR]})
changed = files.ArrowTableUtils.modify_column(column, "component", files._replace_null_placeholder_with_null)
assert changed["component"].to_pylist() == ["x", None]

import astropy.coordinates
point = make_column_literal(astropy.coordinates.SkyCoord(10, 20, unit="deg"))
found["point"] = type(point).__name__
import structlog
assert logs._is_structlog_logger(structlog.get_logger().bind()) and not logs._is_structlog_logger(logs.getLogger("x"))
from lsst.utils.usage import get_peak_mem_usage, get_current_mem_usage
assert get_current_mem_usage()[0].value > 0
assert table() and coordinates() and arrow()
assert not [name for name, module in list(sys.modules.items()) if type(module).__name__ == "StandIn"]
import builtins, gc
assert gc.isenabled() and type(builtins.__import__).__name__ == "builtin_function_or_method"
print(json.dumps(found))
"""
DEFERRED = [*lean.DEFERRED[:-1], "structlog", lean.ARROW]


def ran(how: str, **environment: str) -> dict[str, Any]:
    line = [sys.executable, "-P", "-c", PROGRAM, how]
    done = subprocess.run(line, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), **environment})
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.processes
@pytest.mark.parametrize(
    ("how", "environment", "loaded"),
    [
        ("lean", {}, []),
        ("plain", {lean.SWITCH: "0"}, DEFERRED),
        (
            "broken",
            {},
            [name for name in DEFERRED if name not in ("psutil", "structlog")],
        ),  # of lsst.utils, which stays
    ],
)
def test_the_real_classes_are_used_however_the_butler_was_imported(
    how: str, environment: dict[str, str], loaded: list[str]
) -> None:
    assert ran(how, **environment) == {"loaded": loaded, "is context": False, "point": "RegionColumnLiteral"}


@pytest.mark.processes
def test_threads_that_import_at_the_same_time_see_whole_modules() -> None:
    assert "structlog" not in ran("together")["loaded"]


INTERRUPTED = """
import importlib.util, signal, sys
resolve = importlib.util.resolve_name
def interrupt(name, package):
    importlib.util.resolve_name = resolve
    signal.raise_signal(signal.SIGINT)
    return resolve(name, package)
importlib.util.resolve_name = interrupt
try:
    import campaign.butler.lean
except KeyboardInterrupt:
    import lsst.daf.butler
    print(importlib.util.resolve_name is resolve, lsst.daf.butler.Butler.__name__, signal.getsignal(signal.SIGINT))
"""


@pytest.mark.processes
def test_a_signal_waits_for_the_end_of_the_import() -> None:
    """Amid the import, C code would swallow the exception, and the command would go on."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", INTERRUPTED], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.stdout.startswith("True Butler <built-in function default_int_handler>"), done


def test_the_supported_butler_is_known() -> None:
    (pinned,) = re.findall(r"^lsst-daf-butler==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned in lean.VERSIONS


def test_another_butler_is_imported_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    if Path(str(sys.modules[lean.BUTLER].__file__)).with_name("version.py").read_text().count(lean.VERSIONS[-1]):
        assert lean._known()
    monkeypatch.setattr(lean, "VERSIONS", ("29.0",))
    assert not lean._known()
