"""Instrument signature removal: a raw frame becomes rows of corrected pixels."""

__all__ = [
    "blanks",
    "channel",
    "cosmic",
    "framekernel",
    "framenoise",
    "load",
    "noise",
    "overscan",
    "reader",
    "subtracted",
    "trailing",
]
