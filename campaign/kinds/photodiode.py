"""Readings of a photodiode that watches the lamp: one of each exposure, which no pipeline makes."""

from __future__ import annotations

from typing import Final

from campaign.kinds.model import DatasetType, ProductKind

TYPE: Final = "photodiode"
KIND: Final = ProductKind(TYPE, {TYPE: DatasetType(("instrument", "exposure"), "CalibTable", rubin="IsrCalib")})
