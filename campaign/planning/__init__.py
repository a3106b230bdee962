"""Turn a step's selection into a frozen plan: inputs, calibrations, tasks, cost, placement.

Every refusal that is possible happens here, before anything is claimed.
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
    "staleness",
    "standing",
    "step",
    "usage",
]
