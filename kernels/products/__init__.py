"""Kernels of products and measurements: one module each, run by `kernels.run`."""

__all__ = ["bench"]
