"""Simulated frames with a known truth, and products compared with it."""

__all__ = ["expected"]
