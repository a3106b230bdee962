"""The Butler repository: find, add and remove datasets.

Nothing of the Butler's own types leaves this module except the opaque ``ref``
of a `Dataset`, and every error is one of `campaign.errors`.
"""

from __future__ import annotations

from campaign.butler import lean  # noqa: F401  # before all else: it imports the Butler
from campaign.butler.clean import Cleaning
from campaign.butler.make import ensure, make
from campaign.butler.opening import connect
from campaign.butler.products import Products
from campaign.butler.raws import Raws
from campaign.butler.readings import Readings
from campaign.butler.records import (
    Association,
    CalibrationRef,
    Dataset,
    ExposureRecord,
    IngestReport,
    Raw,
    RefusedFrame,
    Selection,
)

__all__ = [
    "Association",
    "CalibrationRef",
    "Dataset",
    "ExposureRecord",
    "IngestReport",
    "Raw",
    "RefusedFrame",
    "Repository",
    "Selection",
    "create",
    "obtain",
    "open_repository",
]


class Repository(Raws, Readings, Products, Cleaning):
    """An open repository; as a context manager it closes itself. Get one from `open_repository` or `create`."""

    def __enter__(self) -> Repository:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_repository(path: str, writeable: bool = False) -> Repository:
    """Open a repository by its folder, or by its label in the Butler's repository index.

    Raises
    ------
    ConfigurationError
        There is no repository, it is corrupt, or it may not be written (names path and uid).
    """
    return Repository(*connect(str(path), writeable))


def create(root: str) -> Repository:
    """Make a new repository and open it for writing.

    Raises
    ------
    UsageError
        There is a repository already.
    ConfigurationError
        The place cannot be written.
    """
    make(str(root))
    return open_repository(root, writeable=True)


def obtain(root: str) -> Repository:
    """Open a repository for writing; make it where there is none, or only a half-made one.

    Raises
    ------
    ConfigurationError
        The place cannot be written, or holds a repository that cannot be opened and is not empty.
    """
    ensure(str(root))
    return open_repository(root, writeable=True)
