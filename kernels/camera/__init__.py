"""Detectors and amplifiers as boxes of pixels, and where they lie in the focal plane."""

__all__ = ["focalplane", "geometry"]
