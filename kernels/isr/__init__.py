"""Instrument signature removal: a raw frame becomes rows of corrected pixels."""

__all__ = ["config", "cosmic", "framekernel", "load", "noise", "overscan", "reader", "subtracted", "trailing"]
