"""Linearity of each amplifier: a table provided by a site."""

from campaign.kinds.model import Correction, DatasetType, ProductKind

KIND = ProductKind(
    "linearizer",
    {"linearizer": DatasetType(("instrument", "detector"), "CalibTable", True, "Linearizer")},
    correction=Correction("doLinearize", "linearity"),
)
