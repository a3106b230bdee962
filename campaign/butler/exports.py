"""Convert a `butler export-calibs` folder to the dataset types of the other flavour.

Only storage classes and formatters in the export's document change; every other byte of it stays, and the files are
copied and compared.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from secrets import token_hex
from typing import Any, Final

from campaign.butler import lean  # noqa: F401  # before all else: it imports the Butler
from campaign.butler.flavours import FLAVOURS, flavour_of, formatter_class, formatter_of
from campaign.documents import BUTLER_TAGS, MAX_FILE_BYTES, Entry, load, plain, read_text
from campaign.errors import ConfigurationError, TransientError, UsageError, of_system
from campaign.jobs.file import write_text
from campaign.kinds import table
from campaign.kinds.model import Flavour
from campaign.problems import Problem, Problems

DOCUMENT: Final = "export.yaml"
SUMS: Final = "SHA256SUMS"
#: Description and first part of the version of the documents that are understood.
DESCRIPTION, VERSION = "Butler Data Repository Export", "1"
#: A key and its value, as the Butler writes them.
_LINE = re.compile(r"(?P<key>\s*(?:- )?(?:storage_class|formatter): )(?P<value>\S+)")
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Converted:
    """A conversion: number of datasets by dataset type, dataset types that are none of ours, and size of the files."""

    flavour: Flavour
    datasets: Mapping[str, int]
    others: Sequence[str]
    bytes: int


@dataclass
class _Document:
    """Contents of an export's document: files, and the lines to be changed, by number."""

    types: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


def convert(export: Path, out: Path, flavour: Flavour) -> Converted:
    """Copy an export with the dataset types of a flavour.

    Parameters
    ----------
    export : `~pathlib.Path`
        Folder that `butler export-calibs --transfer copy` made.
    out : `~pathlib.Path`
        New folder; it appears whole, with the sums of its files, or not at all.

    Raises
    ------
    UsageError
        ``out`` exists.
    ConfigurationError, Problems
        The export cannot be understood, is of that flavour already, or lacks files; a dataset type has a storage class,
        or a file a formatter, of neither flavour.
    TransientError
        A copy differs from its file.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", do="name a new folder")
    path = export / DOCUMENT
    try:
        text, tree = read_text(path, MAX_FILE_BYTES), load(path, BUTLER_TAGS)
        document = _read(export, tree, flavour)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the export cannot be read: {error}", where=str(path)) from error
    if document.problems:
        raise Problems(str(path), document.problems)
    changed = _changed(text, document.lines)
    if changed == text:
        what = f"is {flavour} already" if flavour_of(document.types) else "holds none of our dataset types"
        raise ConfigurationError(f"the export {what}", where=str(path), do="import it as it is")
    try:
        size = _copy(export, out, sorted(document.files), changed)
    except OSError as error:
        raise of_system(error) from error
    others = sorted(document.types.keys() - table.dataset_types().keys())
    return Converted(flavour, Counter(document.files.values()), others, size)


def _read(export: Path, tree: Entry, flavour: Flavour) -> _Document:
    """Read the tree of a document.

    Raises
    ------
    ValueError
        It is not the Butler's.
    """
    top = tree.value if isinstance(tree.value, dict) else {}
    about = {key: str(plain(top[key])) for key in ("description", "version") if key in top}
    data = top.get("data", Entry(None, tree.where)).value
    if about.get("description") != DESCRIPTION or not isinstance(data, list):
        raise ValueError("it is no export of the Butler")
    if about.get("version", "").split(".")[0] != VERSION:
        raise ValueError(f"version {about.get('version')} is not understood, {VERSION}.x is")
    document = _Document()
    parts = [(part, part.value if isinstance(part.value, dict) else {}) for part in data]
    for part, keys in parts:
        if _text(keys, "type") == "dataset_type":
            _read_type(document, part, keys, flavour)
    for part, keys in parts:
        if _text(keys, "type") == "dataset":
            _read_files(document, export, part, keys, flavour)
    return document


def _text(keys: Mapping[str, Entry], key: str) -> str:
    return keys[key].text if key in keys and not isinstance(keys[key].value, list | dict) else ""


def _line(entry: Entry) -> int:
    return int(entry.where.rpartition(":")[2])


def _read_type(document: _Document, part: Entry, keys: Mapping[str, Entry], flavour: Flavour) -> None:
    name, stored = _text(keys, "name"), _text(keys, "storage_class")
    if not name or not stored:
        document.problems.append(Problem("a dataset type lacks its name or storage class", part.where))
        return
    document.types[name] = stored
    declared = table.dataset_types().get(name)
    if declared is None:
        return
    known = [declared.stored(one) for one in FLAVOURS]
    if stored in known:
        document.lines[_line(keys["storage_class"])] = declared.stored(flavour)
    elif name not in table.RAW:
        what = f"{name} has the storage class {stored}, neither {' nor '.join(dict.fromkeys(known))}"
        document.problems.append(Problem(what, keys["storage_class"].where))


def _read_files(document: _Document, export: Path, part: Entry, keys: Mapping[str, Entry], flavour: Flavour) -> None:
    name = _text(keys, "dataset_type")
    records = keys["records"].value if "records" in keys else None
    if name not in document.types or not isinstance(records, list):
        document.problems.append(Problem(f"datasets of the type {name!r}, which it does not describe", part.where))
        return
    declared = table.dataset_types().get(name)
    ours = {one: formatter_of(declared, one) for one in FLAVOURS} if declared else {}
    names = {one: formatter_class(formatter).name() for one, formatter in ours.items() if formatter}
    for record in records:
        own = record.value if isinstance(record.value, dict) else {}
        path, formatter = _text(own, "path"), _text(own, "formatter")
        if why := _unfit(export, path):
            do = "export with `--transfer copy`"
            document.problems.append(Problem(f"{path or 'a dataset'} {why}", record.where, do))
        document.files[path] = name
        if name in table.RAW or not names:
            continue
        if formatter in names.values():
            document.lines[_line(own["formatter"])] = names[flavour]
        else:
            document.problems.append(
                Problem(f"{path} has the formatter {formatter!r} of neither flavour", record.where)
            )


def _unfit(export: Path, path: str) -> str:
    """Say why a path is none of a file in the export; empty if it is one."""
    if (
        not path
        or "\n" in path
        or PurePosixPath(path).is_absolute()
        or ".." in PurePosixPath(path).parts
        or "://" in path
    ):
        return "lies outside the export"
    file = export / path
    if path in (DOCUMENT, SUMS) or not file.resolve().is_relative_to(export.resolve()):
        return "lies outside the export"
    return "" if file.is_file() else "is not there"


def _changed(text: str, lines: Mapping[int, str]) -> str:
    """Replace the values on some lines, counted from 1.

    Raises
    ------
    ConfigurationError
        A line has something else beside its key and value.
    """
    every = text.split("\n")
    for number, value in lines.items():
        match = _LINE.fullmatch(every[number - 1].rstrip())
        if match is None:
            raise ConfigurationError("not written as the Butler writes it", where=f"{DOCUMENT}:{number}")
        every[number - 1] = f"{match['key']}{value}"
    return "\n".join(every)


def _copy(export: Path, out: Path, files: Sequence[str], text: str) -> int:
    """Make the new folder under another name, and rename it; give the size of its files, byte."""
    with _aside(out) as folder:
        sums = {path: _copied(export / path, folder / path) for path in files}
        write_text(folder / DOCUMENT, text)
        sums[DOCUMENT] = hashlib.sha256((folder / DOCUMENT).read_bytes()).hexdigest()
        write_text(folder / SUMS, "".join(f"{digest}  {path}\n" for path, digest in sums.items()))
        return sum((folder / path).stat().st_size for path in files)


@contextmanager
def _aside(out: Path) -> Iterator[Path]:
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = out.with_name(f".{out.name}.{token_hex(4)}.tmp")
    try:
        folder.mkdir()
        yield folder
        folder.rename(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copied(source: Path, target: Path) -> str:
    """Copy a file, sync it, and read it again; give its SHA-256.

    Raises
    ------
    TransientError
        The copy differs.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    read: Any = hashlib.sha256()
    with source.open("rb") as file, target.open("xb") as copy:
        while chunk := file.read(_CHUNK):
            read.update(chunk)
            copy.write(chunk)
        copy.flush()
        os.fsync(copy.fileno())
    with target.open("rb") as file:
        if hashlib.file_digest(file, "sha256").digest() != read.digest():
            raise TransientError("a copy differs from its file", where=str(source), do="look at the disks")
    return str(read.hexdigest())
