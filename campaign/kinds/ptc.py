"""Gains and read noises of each amplifier: a table provided by a site; frames in electron need it."""

from campaign.kinds.model import Correction, DatasetType, ProductKind

KIND = ProductKind(
    "ptc",
    {"ptc": DatasetType(("instrument", "detector"), "CalibTable", True, "PhotonTransferCurveDataset")},
    correction=Correction("", "ptc"),
)
