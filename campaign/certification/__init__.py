"""Certify the products of a run as calibrations, valid for a range of dates."""

__all__ = ["certify", "command"]
