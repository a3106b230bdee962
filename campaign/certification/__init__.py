"""Products of a run become calibrations that are valid for a range of dates."""

__all__ = ["certify", "command"]
