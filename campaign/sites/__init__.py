"""Data facilities: their files, whether they answer, and how files and commands reach them."""

__all__ = ["model", "ping", "transport", "up"]
