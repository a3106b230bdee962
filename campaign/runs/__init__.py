"""What an operator does with a run: submit, watch, pause, cancel, restart, rerun."""

__all__ = ["cancel", "check", "detach", "drive", "execution", "leftovers", "rerun", "restart", "submit"]
