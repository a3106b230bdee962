"""Statistics over exposures, pixel by pixel: sort, clip, weigh, and estimate the noise of the result."""

__all__ = [
    "binning",
    "clip",
    "edges",
    "estimator",
    "level",
    "network",
    "percentiles",
    "pool",
    "sample",
    "shape",
    "vectors",
    "weighted",
]
