"""The frozen plan of a run, the events of its journal, and all that is derived from both.

The journal is the truth; status, outcomes and the SQL index are computed from it and may be thrown
away.
"""

__all__ = [
    "books",
    "campaigns",
    "claim",
    "control",
    "events",
    "failures",
    "history",
    "index",
    "locks",
    "outcome",
    "owner",
    "plan",
    "progress",
    "status",
]
