"""Simulates exposures with a known truth, and runs the demonstration."""

__all__ = ["blocks", "demo", "simulate", "truth"]
