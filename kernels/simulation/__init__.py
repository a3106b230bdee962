"""Frames of which the truth is known, and products compared with it."""

__all__ = ["expected"]
