"""Statistics over exposures, pixel by pixel: sort, clip, weigh, and estimate the noise of the result."""

__all__ = [
    "binning",
    "cells",
    "clip",
    "detections",
    "edges",
    "estimator",
    "gaps",
    "level",
    "network",
    "percentiles",
    "pool",
    "sample",
    "shape",
    "surface",
    "vectors",
    "weighted",
]
