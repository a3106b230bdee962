"""Instrument signature removal: a raw frame becomes rows of corrected pixels."""

__all__ = ["cosmic", "framekernel", "framenoise", "load", "noise", "overscan", "reader", "subtracted", "trailing"]
