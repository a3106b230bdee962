"""Frames and products judged: levels against those of other exposures, and pictures to look at."""

__all__ = ["judging", "levels", "pictures", "sections"]
