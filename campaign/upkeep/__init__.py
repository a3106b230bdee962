"""Find, show and remove runs that nobody uses.

The uses of a run are looked up anew before each removal.
"""

__all__ = ["clean", "uses"]
