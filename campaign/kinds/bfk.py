"""Brighter-fatter kernels of each detector: a table provided by a site; kept, not applied yet."""

from campaign.kinds.model import DatasetType, ProductKind

KIND = ProductKind("bfk", {"bfk": DatasetType(("instrument", "detector"), "CalibTable", True, "BrighterFatterKernel")})
