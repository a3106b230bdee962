"""Raw files: their headers read by kernels, ingested, summarised, and held against a camera file."""

__all__ = ["ingest", "sections", "summary"]
