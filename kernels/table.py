"""Table of the kernels, by their names in job files.

A kernel is a module with

- ``KERNEL``, its name, as a plain string on a line of its own;
- ``execute(job, comm)``, which runs a job (`kernels.jobs.job.Job`) on this rank and returns the number of tasks that
  failed here; ``comm`` is `None` in a serial run;
- ``warm(bench)``, optional: runs small jobs by a `kernels.products.bench.Bench`, so that numba's code for this kernel
  is in the cache before the first job needs it.

Kernels of this package are found by reading the line of ``KERNEL``, so that only the module of a job is imported.
Another distribution adds a kernel by the entry-point group `GROUP`: kernel name = module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Final

from kernels.errors import JobError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP: Final = "drp_campaign.kernels"
#: Rooms that hold kernels.
_ROOMS: Final = ("products", "response", "simulation", "verification")
_DECLARATION: Final = re.compile(rb'^KERNEL: Final = "(\w+)"$', re.MULTILINE)


def _declared() -> dict[str, str]:
    found = {}
    for room in _ROOMS:
        for file in (Path(__file__).parent / room).glob("*.py"):
            if match := _DECLARATION.search(file.read_bytes()):
                found[match[1].decode()] = f"kernels.{room}.{file.stem}"
    return found


#: Module of each kernel of this package.
KERNELS: Final = _declared()


def _foreign() -> Iterable[EntryPoint]:
    """List the kernels of other distributions; importing the library takes 20 ms, so only on demand."""
    from importlib.metadata import entry_points

    return [entry for entry in entry_points(group=GROUP) if entry.name not in KERNELS]


def names() -> list[str]:
    """List all kernels, those of other distributions included, in order."""
    return sorted({*KERNELS, *(entry.name for entry in _foreign())})


def find(name: str) -> ModuleType:
    """Import a kernel's module.

    Raises
    ------
    JobError
        No kernel, or more than one, has this name; or its module cannot be imported or declares another name.
    """
    if name in KERNELS:
        return import_module(KERNELS[name])
    modules = sorted({entry.value for entry in _foreign() if entry.name == name})
    if not modules:
        raise JobError(f"no kernel {name!r}; there are {', '.join(names())}")
    where = f"kernel {name!r} of {' and '.join(modules)} (entry points {GROUP})"
    if len(modules) > 1:
        raise JobError(f"{where}: uninstall all but one")
    try:
        module = import_module(modules[0])
    except (Exception, SystemExit) as error:  # whatever another distribution's module raises
        raise JobError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
    if getattr(module, "KERNEL", None) != name or not callable(getattr(module, "execute", None)):
        raise JobError(f"{where} must have KERNEL = {name!r} and execute(job, comm)")
    return module
