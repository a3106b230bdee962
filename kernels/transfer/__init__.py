"""Photon transfer: covariances of flats in pairs, their fits, linearity, brighter-fatter, crosstalk and gain ratios."""

__all__ = [
    "bfkernel", "brighterfatter", "commonlight", "covariance", "crosstalkfit", "crosstalkpixels", "crosstalkratios",
    "curve", "fringefit", "gainratios", "lineardetector", "linearfit", "linearmodel", "matching", "nonlinearity",
    "splines", "superpixels", "turnoff", "warm",
]  # fmt: skip
