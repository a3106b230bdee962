"""Statistics over exposures, pixel by pixel: sort, clip, weigh, and estimate the noise of the result."""

__all__ = [
    "binning",
    "clip",
    "edges",
    "estimator",
    "gaps",
    "level",
    "network",
    "percentiles",
    "sample",
    "shape",
    "vectors",
    "weighted",
]
