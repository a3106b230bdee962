"""What nobody needs any more: found, shown and removed.

Who uses a run is looked up anew before each removal.
"""

__all__ = ["clean", "uses"]
