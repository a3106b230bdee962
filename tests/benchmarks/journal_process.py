"""Reads a journal: ``journal_process decode|fold|index FOLDER`` prints CPU s and MiB, of all and of what is new."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from campaign.home import Home
from campaign.journal.events import Journals
from campaign.journal.index import update
from campaign.journal.outcome import Outcome
from tests.benchmarks.jobs import fresh
from tests.benchmarks.journal_data import RUN, more
from tests.benchmarks.machine import peak_mib

#: Events of an increment.
MORE = 1000


def decode(folder: Path) -> Callable[[], int]:
    """Decode the lines, one by one; nothing is made of them."""
    offsets: dict[Path, int] = {}

    def read() -> int:
        many = 0
        for path in sorted((folder / "journal").iterdir()):
            with path.open("rb") as file:
                file.seek(offsets.get(path, 0))
                for line in file:
                    json.loads(line)
                    many += 1
                offsets[path] = file.tell()
        return many

    return read


def fold(folder: Path) -> Callable[[], int]:
    """Fold the events into an outcome, as a driver does that resumes a run and then follows it."""
    journals, outcome = Journals(folder / "journal"), Outcome()

    def read() -> int:
        many = 0
        for event in journals.new():
            outcome.fold(event)
            many += 1
        return many

    return read


def index(folder: Path) -> Callable[[], int]:
    """Bring the index of a new home up to date, as ``campaign status`` does."""
    home = Home(fresh(folder / "home"))
    about = dict.fromkeys(("template", "ticket", "output_run"), "bench")
    home.add_run({"run": RUN, "submit_path": str(folder), **about})

    def read() -> int:
        if said := update(home, RUN):
            raise SystemExit(said)
        return 0

    return read


def main(how: str, folder: Path) -> None:
    """Read all, append some, and read those."""
    read = {"decode": decode, "fold": fold, "index": index}[how](folder)
    began = time.process_time()
    many = read()
    first = time.process_time() - began
    more(folder / "journal", MORE)
    began = time.process_time()
    new = read()
    said = {"cpu_s": first, "more_s": time.process_time() - began, "peak_mib": peak_mib(), "many": many, "new": new}
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
