"""Statistics over exposures, pixel by pixel: sort, clip, weigh, and what they cost in noise."""

__all__ = [
    "binning",
    "clip",
    "edges",
    "estimator",
    "level",
    "network",
    "percentiles",
    "sample",
    "shape",
    "vectors",
    "weighted",
]
