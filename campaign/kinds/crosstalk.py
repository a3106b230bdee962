"""Crosstalk between amplifiers: a table provided by a site."""

from campaign.kinds.model import Correction, DatasetType, ProductKind

KIND = ProductKind(
    "crosstalk",
    {"crosstalk": DatasetType(("instrument", "detector"), "CalibTable", True, "CrosstalkCalib")},
    correction=Correction("doCrosstalk", "crosstalk", from_zero=True),
)
