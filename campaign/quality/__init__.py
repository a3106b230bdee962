"""Judges frames by their levels, and draws pictures of products."""

__all__ = ["judging", "levels", "pictures", "sections", "summary"]
