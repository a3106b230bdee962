"""A job as a kernel sees it: its file, journal, ranks, scratch and published files."""

__all__ = ["gang", "job", "journal", "partition", "ports", "publish", "scratch", "settings"]
