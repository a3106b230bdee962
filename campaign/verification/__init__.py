"""Limits of verification, and verdicts: rows of statistics become lines that pass, warn or fail."""

__all__ = ["derive", "judging", "known", "limits", "lines", "parquet", "rows"]
