"""Kernels that fit how a detector responds, from frames that stay in memory; run by `kernels.run`."""

__all__ = ()
