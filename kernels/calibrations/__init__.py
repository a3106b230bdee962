"""Calibrations in their applied form: read once, checked, ready for a row of pixels."""

__all__ = [
    "applied",
    "bfk",
    "config",
    "crosstalk",
    "cti",
    "curves",
    "defects",
    "deferred",
    "gaincorrection",
    "isrcalib",
    "isrfiles",
    "layouts",
    "linearity",
    "photodiode",
    "ptc",
]
