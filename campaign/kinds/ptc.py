"""Gains and read noises of each amplifier: a table that a site brings; frames in electron ask for it."""

from campaign.kinds.model import Correction, DatasetType, ProductKind

KIND = ProductKind(
    "ptc",
    {"ptc": DatasetType(("instrument", "detector"), "CalibTable", calibration=True)},
    correction=Correction("", "ptc"),
)
