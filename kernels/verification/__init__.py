"""Verification: statistics of corrected frames and of products, each with its expectation and statistical error."""

__all__ = ["applied", "evaluate", "frame", "images", "metric", "pairs", "parquet", "rows", "stack", "tables", "warm"]
