"""Handle a run for its operator: submit, watch, pause, cancel, restart, rerun."""

__all__ = [
    "cancel",
    "check",
    "detach",
    "drive",
    "execution",
    "listing",
    "record",
    "restart",
    "single",
    "submit",
    "verdict",
]
