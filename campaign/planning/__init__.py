"""A step's selection becomes a frozen plan: inputs, calibrations, tasks, cost, placement.

Whatever can be refused is refused here, before anything is claimed.
"""

__all__ = [
    "agreement",
    "allocation",
    "cost",
    "derived",
    "freeze",
    "inputs",
    "order",
    "outlook",
    "reads",
    "stale",
    "staleness",
    "step",
    "usage",
]
