"""Exposures of which the truth is known: simulate, and the demonstration."""

__all__ = ["blocks", "demo", "simulate", "truth"]
