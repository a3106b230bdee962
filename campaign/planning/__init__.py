"""A step's selection becomes a frozen plan: inputs, calibrations, tasks, cost, placement.

Whatever can be refused is refused here, before anything is claimed.
"""

__all__ = [
    "agreement",
    "allocation",
    "check",
    "corrections",
    "cost",
    "derived",
    "freeze",
    "inputs",
    "outlook",
    "stale",
    "staleness",
    "step",
    "usage",
]
