"""Calibrations as they are applied: read once, checked, ready for a row of pixels."""

__all__ = ["applied", "config", "crosstalk", "cti", "defects", "deferred", "linearity", "ptc"]
