"""Raw files: headers read by kernels, ingested, summarised, and compared with a camera file."""

__all__ = ["ingest", "readings", "sections", "summary"]
