"""Upstream's pipeline files: read, checked, and reduced to what the kernels do.

A configuration that a kernel would not honour is refused by name.
"""

__all__ = ["makers", "model", "svg"]
